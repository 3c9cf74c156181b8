"""A reward on points that grows to one side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.point_wall import wall


@register
class PointLinear(Reward):
    """The first coordinate, less the wall of ``rewards/point_wall.py``.

    Highest at (1.75, 0), where the wall's slope 4 (x - 1.5) reaches 1: 1.75 - 2 / 16 = 1.625.
    """

    name = "point_linear"
    version = "1"
    unit = "length"
    range = (None, 1.625)
    scores = "point"
    differentiable = True
    source = "this project"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images[:, 0] - wall(images)
