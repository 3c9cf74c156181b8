"""Rewards as methods see them: every image scored in training is counted, and its time a phase.

What methods receive is checked here once, since a reward of the wrong shape would broadcast into
a loss that means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from diffusion.divergence import Diverged
from diffusion.ledger import Ledger
from rewards import Reward

RewardFunction = Callable[[Tensor, list[str]], Tensor]


class CountedReward:
    """A reward by its reference path; counts ``reward_calls`` in images."""

    def __init__(self, reward: Reward | None, ledger: Ledger) -> None:
        self.reward, self.ledger = reward, ledger

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Rewards fp32 ``[n]``; raises ``Diverged`` for images that are not finite, ``ValueError``
        where rewards of others are not."""
        if self.reward is None:
            raise ValueError("this cell trains on no reward")
        _require_finite(images)
        self.ledger.add("reward_calls", len(images))
        with _scoring(self.ledger):
            return _checked(self.reward(images, prompts), self.reward.name, len(images))


def counted_gradient(reward: Reward | None, ledger: Ledger) -> RewardFunction | None:
    """The reward with gradients to the images, counting ``reward_calls`` and
    ``reward_gradient_calls`` in images; ``None`` if it has none."""
    if reward is None or not reward.differentiable:
        return None
    differentiable = reward

    def score(images: Tensor, prompts: list[str]) -> Tensor:
        _require_finite(images)
        ledger.add("reward_calls", len(images))
        ledger.add("reward_gradient_calls", len(images))
        with _scoring(ledger):
            values = differentiable.differentiable_score(images, prompts)
            return _checked(values, differentiable.name, len(images))

    return score


@contextmanager
def _scoring(ledger: Ledger) -> Iterator[None]:
    """The phase ``reward``; time inside a torch module, of whatever reward, is the scorer's."""
    depth = 0

    def enter(module: nn.Module, inputs: Any) -> None:
        nonlocal depth
        depth += 1
        if depth == 1:
            ledger.enter_network("scorer")

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            ledger.leave_network()
            if isinstance(output, Tensor):
                ledger.follow("scorer", output)

    hooks = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ]
    try:
        with ledger.phase("reward"):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _require_finite(images: Tensor) -> None:
    bad = int((~images.detach().isfinite().flatten(1).all(dim=1)).sum())
    if bad:
        raise Diverged(f"{bad} of {len(images)} training images are not finite")


def _checked(values: Tensor, name: str, n: int) -> Tensor:
    if values.shape != (n,) or values.dtype != torch.float32:
        raise ValueError(
            f"reward {name!r} gave {values.dtype} {list(values.shape)} for {n} images, "
            f"not float32 [{n}]"
        )
    bad = int((~values.detach().isfinite()).sum())
    if bad:
        raise ValueError(f"reward {name!r} is not finite for {bad} of {n} images")
    return values
