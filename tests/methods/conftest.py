"""Tasks of a few images for the methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import methods
from benchmark.scoring import CountedReward, counted_gradient
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy
from diffusion.policy import Policy
from methods import Method, Task
from rewards.colourfulness import Colourfulness

PROMPTS = ("a fox", "an owl", "a red turtle")
STEPS = 4
ROUND = {"prompts_per_round": 2, "images_per_prompt": 4}
"""A round of eight images."""


def make_task(policy: Policy, images: int = 16, seed: int = 0, **fields: Any) -> Task:
    """A task on colourfulness."""
    reward, ledger = Colourfulness(), policy.ledger
    fields = {
        "reward": CountedReward(reward, ledger),
        "reward_gradient": counted_gradient(reward, ledger),
        "prompts": PROMPTS,
        **fields,
    }
    return Task(policy=policy, seed=seed, images=images, **fields)


def available(name: str) -> type[Method]:
    """A method by its name; skips the test, saying why, where what it needs is not installed."""
    kind = methods.get(name)
    if reason := kind.unavailable():
        pytest.skip(f"{name} {reason}")
    return kind


def make_method(name: str, task: Task, **options: Any) -> Method:
    """A method with options beside its defaults; on all transitions, weighted alike as in the
    formulas, each trajectory from its own noise, unless told otherwise."""
    kind = available(name)
    plain = {
        "timestep_fraction": 1.0,
        "timestep_draw": "random",
        "step_weight": "uniform",
        "centre_states": False,
        "advantage_scale": "group",
        "flow_levels": "learned",
        "initial_noise": "independent",
    }
    options = {k: v for k, v in plain.items() if k in kind.Config.model_fields} | options
    return kind(task, kind.Config(**options))


def optimizer_of(method: Any) -> Any:
    """The policy's optimizer, TRL's own in the form of ours."""
    if not hasattr(method, "trl"):
        return method.optimizer
    adamw = method.trl.trainer.optimizer.optimizer
    return SimpleNamespace(adamw=adamw, parameters=adamw.param_groups[0]["params"])


def gradient_of(optimizer: Any) -> list[torch.Tensor]:
    """The gradients of an optimizer's only step so far, which must not have been clipped: AdamW's
    first moment is then a tenth of them."""
    return [10 * optimizer.adamw.state[p]["exp_avg"] for p in optimizer.parameters]


@pytest.fixture
def tiny_policy(tiny_model: Path) -> Callable[..., LatentDiffusion]:
    """Makes a tiny Stable Diffusion with LoRA matrices that are not zero, four steps."""

    def make(**settings: Any) -> LatentDiffusion:
        settings = {
            "seed": 0,
            "ledger": Ledger(),
            "sampling_steps": STEPS,
            "guidance_scale": 3.0,
            "lora_rank": 2,
            **settings,
        }
        policy = load_policy(str(tiny_model), **settings)
        source = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=source))
        return policy

    return make
