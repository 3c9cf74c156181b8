"""How many pictures are like some picture of the base model."""

from __future__ import annotations

from results.metrics.interface import Features, Measurement, Metric, register
from results.metrics.neighbours import CONDITIONS, MINIMUM_IMAGES, inside


@register
class Precision(Metric):
    """Share of the cell's images that lie in the ball of an image of base.

    Falls when pictures leave what the base model draws, as training on a reward may well want.
    """

    name = "precision"
    version = "1"
    title = "Precision to base"
    unit = "share of images"
    direction = "neither"
    needs_base = True
    minimum = MINIMUM_IMAGES
    source = "Kynkäänniemi et al., Improved Precision and Recall, arXiv 1904.06991, eq. 3"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        value = float(inside(features, base).any(axis=1).mean())
        return Measurement(value, CONDITIONS)
