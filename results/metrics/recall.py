"""How much of the base model's pictures is still within reach."""

from __future__ import annotations

from results.metrics.interface import Features, Measurement, Metric, register
from results.metrics.neighbours import CONDITIONS, MINIMUM_IMAGES, inside


@register
class Recall(Metric):
    """Share of base images in the ball of an image of the cell: modes that are still drawn.

    1 for an untrained cell, whose images are those of base; near 0 after a collapse.
    """

    name = "recall"
    version = "1"
    title = "Recall of base"
    unit = "share of base images"
    direction = "higher"
    needs_base = True
    minimum = MINIMUM_IMAGES
    source = "Kynkäänniemi et al., Improved Precision and Recall, arXiv 1904.06991, eq. 3"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        value = float(inside(base, features).any(axis=1).mean())
        return Measurement(value, CONDITIONS)
