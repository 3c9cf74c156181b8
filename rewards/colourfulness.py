"""How colourful a picture is, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from rewards import register
from rewards.interface import Reward

EPS = 1e-6
"""Added under both roots, in squared 8-bit levels: keeps the gradient of grey pictures finite."""


@register
class Colourfulness(Reward):
    """Hasler and Süsstrunk's colourfulness divided by 100.

    With channels R, G, B from 0 to 255, rg = R - G and yb = (R + G) / 2 - B, over all pixels:
    (sqrt(var rg + var yb) + 0.3 sqrt((mean rg)² + (mean yb)²)) / 100. In the authors' user study
    0.15 reads as slightly colourful, 0.33 moderately, 0.59 quite, 0.82 highly, 1.09 extremely.
    """

    name = "colourfulness"
    version = "1"
    unit = "Hasler-Süsstrunk M / 100"
    # variance + mean² is the mean square of (rg, yb), at most that of pure red; under that bound
    # standard deviation + 0.3 |mean| is greatest at 64 % red and 36 % cyan.
    range = (0.0, math.sqrt(1.09) * math.hypot(255.0, 127.5) / 100)
    differentiable = True
    source = (
        "Hasler and Süsstrunk, Measuring Colourfulness in Natural Images, "
        "Human Vision and Electronic Imaging VIII, 2003"
    )

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        red, green, blue = (images * 255).flatten(2).unbind(1)
        rg = red - green
        yb = (red + green) / 2 - blue
        variance = rg.var(1, correction=0) + yb.var(1, correction=0)
        mean_square = rg.mean(1).square() + yb.mean(1).square()
        return ((variance + EPS).sqrt() + 0.3 * (mean_square + EPS).sqrt()) / 100
