"""Policies on the tiny model, each with a ledger of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy

MakePolicy = Callable[..., LatentDiffusion]


@pytest.fixture
def make_policy(tiny_model: Path) -> MakePolicy:
    """``make_policy(**settings)``: a fresh policy of four steps at guidance 3."""

    def make(**settings: Any) -> LatentDiffusion:
        defaults = {"seed": 0, "sampling_steps": 4, "guidance_scale": 3.0}
        return load_policy(str(tiny_model), ledger=Ledger(), **(defaults | settings))

    return make


@pytest.fixture
def policy(make_policy: MakePolicy) -> LatentDiffusion:
    return make_policy()
