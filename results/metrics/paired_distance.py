"""How far training has moved each picture."""

from __future__ import annotations

from results.metrics.interface import Features, Measurement, Metric, register, unit_vectors


@register
class PairedDistance(Metric):
    """Mean of ``1 - cosine`` between each image and that of base from the same noise.

    0 for an untrained cell. Best-of-n keeps images of other noise, so its value is that of
    different images.
    """

    name = "paired_distance"
    version = "1"
    title = "Distance to the same noise's base image"
    unit = "1 - cosine"
    direction = "neither"
    needs_base = True
    minimum = 1
    source = "this project: evaluation images of all methods share their noise"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        cosines = (unit_vectors(features) * unit_vectors(base)).sum(axis=-1)
        values = (1 - cosines).mean(axis=1)
        return Measurement(float(values.mean()), per_prompt=[float(value) for value in values])
