"""Advantages of policy gradients: rewards standardised over a set of comparable images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

Kind = Annotated[
    Literal["group", "batch", "per_prompt_tracker"],
    Field(
        description="What a reward is standardised over: the prompt's images of the round, all "
        "images of the round, or the prompt's last rewards over rounds. 'group', which needs no "
        "history and takes the prompt's difficulty out at once; the releases track per prompt, "
        "which pays off over hundreds of rounds.",
    ),
]
Clip = Annotated[
    float, Field(gt=0, description="Largest magnitude of an advantage. 5, as released.")
]
BufferSize = Annotated[
    int,
    Field(ge=1, description="Rewards the tracker keeps of a prompt. 16; 32 in some releases."),
]
MinCount = Annotated[
    int,
    Field(
        ge=1,
        description="Rewards of a prompt below which the tracker uses the whole round's "
        "statistics. 16, as released.",
    ),
]

EPSILON = 1e-6
"""Added to the standard deviation, as released. The same share of the mean's magnitude is added
too, which the releases do not: rewards of fp32 that differ by rounding alone would otherwise be
blown up to full-sized advantages."""


def check_group(kind: str, images_per_prompt: int) -> None:
    """Raises ``ValueError`` for groups of one image, whose advantages would all be zero."""
    if kind == "group" and images_per_prompt < 2:
        raise ValueError("advantage 'group' needs images_per_prompt of at least 2")


def standardise(values: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """``values`` in standard deviations (population) from the mean of ``reference``, float64."""
    values, reference = values.double(), reference.double()
    mean = reference.mean()
    return (values - mean) / (reference.std(correction=0) + EPSILON * (1 + mean.abs()))


def group_advantages(prompts: Sequence[str], rewards: torch.Tensor) -> torch.Tensor:
    """Rewards ``[n]`` standardised among this round's images of the same prompt, float64."""
    advantages = torch.zeros(len(prompts), dtype=torch.float64, device=rewards.device)
    for prompt in dict.fromkeys(prompts):
        chosen = torch.tensor([other == prompt for other in prompts], device=rewards.device)
        advantages[chosen] = standardise(rewards[chosen], rewards[chosen])
    return advantages


class PerPromptTracker:
    """The last rewards of each prompt, by its exact text (DDPO, arXiv 2305.13301, section 4).

    The statistics of a prompt include the current rewards. Until ``min_count`` rewards of a prompt
    are known, those of the whole batch are used. Rewards are kept in float64, so that whole-number
    rewards keep their fractions of a standard deviation.
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self.buffer_size = buffer_size
        self.min_count = min_count
        self.rewards: dict[str, list[float]] = {}

    def update(self, prompts: Sequence[str], rewards: torch.Tensor) -> torch.Tensor:
        """Remembers rewards ``[n]`` and returns their advantages, float64 ``[n]``."""
        advantages = torch.zeros(len(prompts), dtype=torch.float64, device=rewards.device)
        for prompt in dict.fromkeys(prompts):
            chosen = torch.tensor([other == prompt for other in prompts], device=rewards.device)
            known = self.rewards.get(prompt, []) + rewards[chosen].double().tolist()
            self.rewards[prompt] = known = known[-self.buffer_size :]
            reference = (
                rewards.new_tensor(known, dtype=torch.float64)
                if len(known) >= self.min_count
                else rewards
            )
            advantages[chosen] = standardise(rewards[chosen], reference)
        return advantages

    def state_dict(self) -> dict[str, Any]:
        """Rewards by prompt."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restores what ``state_dict`` gave."""
        self.rewards = {prompt: [float(v) for v in values] for prompt, values in state.items()}


class Advantages:
    """Advantages by one of three standardisations, clipped.

    ``kind``: ``group`` (the prompt's images of the round), ``batch`` (all images of the round) or
    ``per_prompt_tracker`` (the prompt's last rewards over rounds).
    """

    def __init__(self, kind: str, clip: float, buffer_size: int, min_count: int) -> None:
        self.kind = kind
        self.clip = clip
        self.tracker = PerPromptTracker(buffer_size, min_count)

    def __call__(self, prompts: Sequence[str], rewards: torch.Tensor) -> torch.Tensor:
        """Advantages fp32 ``[n]`` of rewards ``[n]``, within ``clip`` of zero."""
        if self.kind == "group":
            values = group_advantages(prompts, rewards)
        elif self.kind == "batch":
            values = standardise(rewards, rewards)
        else:
            values = self.tracker.update(prompts, rewards)
        return values.clamp(-self.clip, self.clip).float()

    def state_dict(self) -> dict[str, Any]:
        """The tracker's rewards by prompt."""
        return self.tracker.state_dict()

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restores what ``state_dict`` gave."""
        self.tracker.load_state_dict(state)


def leave_one_out(
    values: torch.Tensor, clip: float, deviation: float | None = None
) -> torch.Tensor:
    """``values`` ``[n]`` less the mean of the others and over their deviation.

    With b_i the mean of the others, the deviation is the root of the mean of (g_j - b_j)^2 over
    the others j, unless one is given; the result is clipped to ``clip``. A single value has no
    others: it gets 0.
    """
    others = len(values) - 1
    if others == 0:
        return torch.zeros_like(values)
    centred = values - (values.sum() - values) / others
    if deviation is not None:
        return (centred / (deviation + 1e-8)).clamp(-clip, clip)
    squares = centred.square()
    theirs = ((squares.sum() - squares) / others).clamp(min=0).sqrt()
    return (centred / (theirs + 1e-8)).clamp(-clip, clip)
