"""How deep in the base model's pictures the pictures lie."""

from __future__ import annotations

from results.metrics.interface import Features, Measurement, Metric, register
from results.metrics.neighbours import CONDITIONS, MINIMUM_IMAGES, inside


@register
class Density(Metric):
    """Mean number of base images' balls that an image of the cell lies in, divided by k.

    Above 1 where images crowd in the midst of what the base model draws.
    """

    name = "density"
    version = "1"
    title = "Density at base"
    unit = "balls an image, by their expected number"
    direction = "neither"
    needs_base = True
    minimum = MINIMUM_IMAGES
    source = "Naeem et al., Reliable Fidelity and Diversity Metrics, arXiv 2002.09797, eq. 5"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        value = float(inside(features, base).sum(axis=1).mean() / CONDITIONS["neighbours"])
        return Measurement(value, CONDITIONS)
