"""AlignProp's gradient against the sampling chain unrolled by hand, through torch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.text_encoding import ClipText
from methods import sampling
from methods.alignprop import gradient_steps
from rewards.colourfulness import Colourfulness
from tests.how_we_know import Record
from tests.methods.conftest import ROUND, STEPS, gradient_of, make_method, make_task

TRUNCATIONS: list[dict[str, Any]] = [
    {"truncation": "full"},
    {"truncation": "last-k", "last_steps": 1},
    {"truncation": "last-k", "last_steps": 3},
    {"truncation": "random-per-step"},
    {"truncation": "random-per-trajectory"},
    {"truncation": "random-per-trajectory", "threshold": "uniform"},
]


def unrolled(
    policy: LatentDiffusion,
    prompts: list[str],
    generators: list[torch.Generator],
    carries: torch.Tensor,
) -> torch.Tensor:
    """Pictures of the whole batch: plain calls of UNet and autoencoder, DDIM written out anew,
    the noise predictions of steps that carry no gradient detached, no checkpoints."""
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2).cumprod(0)
    grid = [751, 501, 251, 1, 0]

    def noise() -> torch.Tensor:
        return torch.stack([torch.randn(policy.latent_shape, generator=g) for g in generators])

    assert isinstance(policy.text, ClipText)
    tokens = policy.text.tokenizer(
        [""] * len(prompts) + prompts, padding="max_length", return_tensors="pt"
    )
    states = policy.text_encoder(tokens.input_ids)[0].detach()
    x = noise()
    for index in range(STEPS):
        alpha, previous = float(alphas[grid[index]]), float(alphas[grid[index + 1]])
        empty, asked = policy.unet(torch.cat([x, x]), grid[index], states).sample.chunk(2)
        predicted = empty + policy.guidance_scale * (asked - empty)
        kept = carries[index].view(-1, 1, 1, 1)
        predicted = torch.where(kept, predicted, predicted.detach())
        variance = policy.eta**2 * (1 - previous) / (1 - alpha) * (1 - alpha / previous)
        clean = (x - math.sqrt(1 - alpha) * predicted) / math.sqrt(alpha)
        direction = math.sqrt(1 - previous - variance)
        x = math.sqrt(previous) * clean + direction * predicted + math.sqrt(variance) * noise()
    pictures = policy.vae.decode(x / policy.vae.config.scaling_factor).sample
    return ((pictures + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("options", TRUNCATIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_the_gradient_of_every_truncation(
    tiny_policy: Callable[..., LatentDiffusion],
    options: dict[str, Any],
    eta: float,
    evidence: Record,
) -> None:
    policy = tiny_policy(eta=eta)
    task = make_task(policy)
    method: Any = make_method(
        "alignprop", task, updates_per_round=1, gradient_clip=1e9, **ROUND, **options
    )
    prompts, generators = sampling.draw_round(task, 0, method.config)
    carries = gradient_steps(method.config, STEPS, 8, task.generator("truncation", 0))
    pictures = unrolled(policy, prompts, generators, carries)
    loss = -Colourfulness().differentiable_score(pictures, prompts).mean()
    expected = torch.autograd.grad(loss, policy.parameters())

    metrics = method.step()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["gradient_steps"] == float(carries.float().sum(0).mean())
    actual, expected_all = (
        torch.cat([g.flatten() for g in gradients])
        for gradients in (gradient_of(method.optimizer), expected)
    )
    assert expected_all.norm() > 1e-4
    evidence(
        f"alignprop: gradient of {options['truncation']} against an unrolled chain",
        float((actual - expected_all).norm() / expected_all.norm()),
        1e-5,
        "gradient of all LoRA parameters and torch autograd of the chain by hand, relative",
    )
