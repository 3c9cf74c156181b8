"""Share of image pairs that are nearer than hardly any pair of the base model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.metrics.interface import (
    Features,
    Measurement,
    Metric,
    Refused,
    register,
    unit_vectors,
)

QUANTILE = 0.01


@register
class NearDuplicates(Metric):
    """Share of pairs of images of one prompt whose cosine distance is below the first percentile
    of such pairs of the base model: 0.01 for the base model itself, 1 after a collapse.
    """

    name = "near_duplicates"
    version = "1"
    title = "Near-duplicate rate"
    unit = "share of pairs; 0.01 for base"
    direction = "lower"
    needs_base = True
    minimum = 2
    minimum_images = 2
    source = "this project: a rate relative to the base model"

    minimum_pairs = round(1 / QUANTILE)
    """With fewer pairs of the base model its first percentile would lie outside of them."""

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        reference = pair_distances(base)
        if reference.size < self.minimum_pairs:
            raise Refused(
                f"{self.name} needs at least {self.minimum_pairs} pairs of images of one prompt "
                f"to find their first percentile, not {reference.size}"
            )
        threshold = np.quantile(reference, QUANTILE)
        close = pair_distances(features) <= threshold
        return Measurement(
            float(close.mean()),
            conditions={"quantile_of_base": QUANTILE},
            details={"threshold": float(threshold), "pairs": float(close.size)},
        )


def pair_distances(features: Features) -> NDArray[np.float64]:
    """``1 - cosine`` of all pairs of images of one prompt, ``[prompts, pairs]``."""
    unit = unit_vectors(features)
    cosines = unit @ unit.swapaxes(-1, -2)
    first, second = np.triu_indices(features.shape[1], k=1)
    return 1 - cosines[:, first, second]
