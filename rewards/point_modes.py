"""A reward on points with four peaks of unequal height."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.point_wall import wall

DISTANCE, WIDTH = 1.35, 0.4
HEIGHTS = (1.5, 1.0, 0.75, 0.5)


@register
class PointModes(Reward):
    """Largest of four bumps, less the wall.

    Bump k, at distance 1.35 from the origin in the direction k 90°, is h_k exp(-|x - c_k|^2 /
    2 w^2) with w = 0.4 and heights 1.5, 1, 0.75 and 0.5: a maximiser keeps one of them.
    """

    name = "point_modes"
    version = "1"
    unit = "height"
    range = (None, 1.5)
    scores = "point"
    differentiable = True
    source = "this project"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        directions = images.new_tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])
        offsets = images.unsqueeze(1) - DISTANCE * directions
        bumps = torch.exp(-offsets.square().sum(-1) / (2 * WIDTH**2))
        return (images.new_tensor(HEIGHTS) * bumps).amax(1) - wall(images)
