"""Rewards that a suite declares: weighted sums and products of registered ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from rewards import Reward


class CompositeSettings(BaseModel):
    """One of the two: a sum or a product."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sum: dict[str, float] = {}
    """Reward to its weight, which may be negative."""
    product: tuple[str, ...] = ()
    """Rewards that are multiplied, best ones that are never negative."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> CompositeSettings:
        if bool(self.sum) == bool(self.product):
            raise ValueError("either a sum, such as {style: 1, clip_score: 0.5}, or a product")
        if wrong := [name for name, weight in self.sum.items() if not math.isfinite(weight)]:
            raise ValueError(f"the weight of {wrong[0]} is not finite")
        if not all(self.sum.values()):
            raise ValueError("a weight of 0 leaves its reward out: take it out of the sum")
        if len(set(self.product)) < len(self.product):
            raise ValueError("a reward occurs twice in the product")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The rewards it is made of."""
        return tuple(self.sum) or self.product


def load(name: str, declared: Mapping[str, CompositeSettings | dict[str, Any]]) -> Reward:
    """The reward of a name, a declared composite or a registered one.

    Raises what :func:`rewards.load` raises, and ``ValueError`` for a composite of rewards that do
    not go together.
    """
    import rewards
    from rewards.composite import Composite

    if name not in declared:
        return rewards.load(name)
    settings = CompositeSettings.model_validate(declared[name])
    parts = [rewards.load(part) for part in settings.parts]
    return Composite(name, parts, list(settings.sum.values()) or None)
