"""How many of the base model's pictures have a counterpart."""

from __future__ import annotations

from results.metrics.interface import Features, Measurement, Metric, register
from results.metrics.neighbours import CONDITIONS, MINIMUM_IMAGES, inside


@register
class Coverage(Metric):
    """Share of base images in whose ball lies an image of the cell.

    1 for an untrained cell, whose images are those of base; unlike recall it is not raised by
    single images far off, whose balls are large.
    """

    name = "coverage"
    version = "1"
    title = "Coverage of base"
    unit = "share of base images"
    direction = "higher"
    needs_base = True
    minimum = MINIMUM_IMAGES
    source = "Naeem et al., Reliable Fidelity and Diversity Metrics, arXiv 2002.09797, eq. 6"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        value = float(inside(features, base).any(axis=0).mean())
        return Measurement(value, CONDITIONS)
