"""Every method that trains learns, on data whose mean is all there is to learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import methods
from diffusion.rollout import sample
from tests.methods.conftest import make_method, make_task
from tests.methods.point import PointPolicy

TRAINED = [name for name, kind in methods.registry().items() if kind.trains]
Reward = Callable[[torch.Tensor, list[str]], torch.Tensor]


def red(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Mean of the first channel."""
    return images[:, 0].mean(dim=(1, 2))


def not_red(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """The opposite, on another scale."""
    return -10 * red(images, prompts)


def trained(name: str, reward: Reward, **options: Any) -> tuple[float, float]:
    """Mean reward of the same noise before and after twelve rounds of 32 images."""
    policy = PointPolicy()
    task = make_task(policy, images=384, reward=reward, reward_gradient=reward)

    def evaluate() -> float:
        generators = [torch.Generator().manual_seed(seed) for seed in range(64)]
        return float(reward(policy.decode(sample(policy, ["a"] * 64, generators)), []).mean())

    before = evaluate()
    method = make_method(name, task, learning_rate=0.05, micro_batch_size=16, **options)
    for _ in range(method.rounds):
        method.step()
    return before, evaluate()


OPTIONS: dict[str, dict[str, Any]] = {
    # The released window on the joint density: 1e-4 of 16384 dimensions, here of 12.
    "ddpo": {"ratio_clip": 1.6384 / 12},
    "trl-ddpo": {"ratio_clip": 1.6384 / 12},
    # DAG's target has no prior. Where beta r spreads little, it is flat, and the mean drifts
    # either way; that it follows the reward both up and down is what counts.
    "dag": {"reward_unit": "initial_std"},
    "dag-kl": {"reward_unit": "initial_std"},
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("reward", [red, not_red])
def test_the_reward_rises(name: str, reward: Reward) -> None:
    before, after = trained(name, reward, **OPTIONS.get(name, {}))
    scale = 1 if reward is red else 10
    assert (after - before) / scale > 0.05
