"""A reward on points with one peak."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.point_wall import wall

CENTRE, WIDTH = (0.0, 1.35), 0.5


@register
class PointBump(Reward):
    """exp(-|x - c|^2 / 2 w^2) with c = (0, 1.35) and w = 0.5, less the wall: highest at c, 1."""

    name = "point_bump"
    version = "1"
    unit = "height"
    range = (None, 1.0)
    scores = "point"
    differentiable = True
    source = "this project"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        distance = (images - images.new_tensor(CENTRE)).square().sum(1)
        return (-distance / (2 * WIDTH**2)).exp() - wall(images)
