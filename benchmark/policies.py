"""The policy that a suite's model settings describe."""

from __future__ import annotations

import torch

from benchmark.models import output
from benchmark.suite import ECONOMIES, ModelSettings
from diffusion.ledger import Ledger
from diffusion.mixture import load_mixture
from diffusion.pipelines import Economies, load_policy
from diffusion.policy import Policy


def build_policy(model: ModelSettings, seed: int, ledger: Ledger) -> Policy:
    """The policy that a suite's model settings describe."""
    device = model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if output(model.name) == "point":
        return load_mixture(
            ledger=ledger,
            sampling_steps=model.sampling_steps,
            eta=model.eta,
            variance=model.variance,
            device=device,
        )
    return load_policy(
        model.name,
        seed=seed,
        ledger=ledger,
        sampling_steps=model.sampling_steps,
        guidance_scale=model.guidance_scale,
        eta=model.eta,
        trainable=model.trainable,
        lora_rank=model.lora_rank,
        lora_alpha=model.lora_alpha,
        dtype=getattr(torch, model.dtype),
        device=device,
        economies=Economies(**{name: getattr(model, name) for name in ECONOMIES}),
    )
