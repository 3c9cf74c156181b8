"""Rewards made of others: weighted sums and products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewards.interface import Reward, RewardInputError

Bounds = tuple[float | None, float | None]


class Composite(Reward):
    """A weighted sum of rewards, or their product where ``factors`` is ``None``.

    Either path is the same path of the parts. Raises ``ValueError`` for parts that score different
    things, images and points.
    """

    unit = "composite"
    source = "this suite"

    def __init__(
        self, name: str, parts: Sequence[Reward], factors: Sequence[float] | None = None
    ) -> None:
        kinds = {part.scores for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"reward {name!r} is made of rewards of images and of points")
        self.name, self.parts, self.factors = name, list(parts), factors
        self.scores = kinds.pop()
        self.version = self._formula()
        self.range = self._range()
        self.differentiable = all(part.differentiable for part in parts)
        self.needs_prompt = any(part.needs_prompt for part in parts)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._together(lambda part: part.score(images, prompts))

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._together(lambda part: part.reference_score(images, prompts))

    def check_prompts(self, prompts: Sequence[str]) -> None:
        for part in self.parts:
            try:
                part.check_prompts(prompts)
            except RewardInputError as error:
                raise RewardInputError(f"reward {self.name!r}: {error}") from error

    def _together(self, value: Callable[[Reward], Tensor]) -> Tensor:
        values = torch.stack([value(part).float() for part in self.parts])
        if self.factors is None:
            return values.prod(0)
        return values.new_tensor(self.factors) @ values

    def _formula(self) -> str:
        named = [f"{part.name} {part.version}" for part in self.parts]
        if self.factors is None:
            return " * ".join(f"[{each}]" for each in named)
        terms = zip(self.factors, named, strict=True)
        return " + ".join(f"{factor:g} [{each}]" for factor, each in terms)

    def _range(self) -> Bounds:
        if self.factors is None:
            return _product([part.range for part in self.parts])
        terms = [
            _scaled(part.range, factor)
            for part, factor in zip(self.parts, self.factors, strict=True)
        ]
        return _total([low for low, _ in terms]), _total([high for _, high in terms])


def _scaled(bounds: Bounds, factor: float) -> Bounds:
    low, high = (None if bound is None else bound * factor for bound in bounds)
    return (low, high) if factor >= 0 else (high, low)


def _total(bounds: Sequence[float | None]) -> float | None:
    known = [bound for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None


def _product(ranges: Sequence[Bounds]) -> Bounds:
    """Of values anywhere in their ranges; nothing is known where a range has an open end."""
    closed = [(low, high) for low, high in ranges if low is not None and high is not None]
    if len(closed) < len(ranges):
        return None, None
    corners = [math.prod(corner) for corner in itertools.product(*closed)]
    return min(corners), max(corners)
