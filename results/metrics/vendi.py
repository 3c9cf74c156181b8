"""Vendi score within a prompt, at the order and number of images that it names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.metrics.interface import Features, Measurement, Metric, register, unit_vectors


@register
class Vendi(Metric):
    """How many different pictures the images of a prompt amount to; mean over prompts.

    1 if all are alike, n if all are orthogonal. It grows with n, so the value holds for the
    number of images a prompt that is its condition, and for no other.
    """

    name = "vendi"
    version = "1"
    title = "Vendi score"
    unit = "different images of n"
    direction = "higher"
    needs_base = False
    minimum = 2
    minimum_images = 2
    source = "Friedman and Dieng, The Vendi Score, arXiv 2210.02410, eq. 1"

    order = 1.0
    """Of the Rényi entropy; 1 is Shannon's."""

    def compute(self, features: Features, base: Features | None) -> Measurement:
        values = [vendi_score(prompt, self.order) for prompt in features]
        return Measurement(
            float(np.mean(values)),
            conditions={"images_of_each_prompt": features.shape[1], "order": self.order},
            per_prompt=values,
        )


def vendi_score(features: NDArray[np.float64], order: float = 1.0) -> float:
    """exp of the Rényi entropy of the eigenvalues of K / n, K the cosines of ``[n, width]``.

    NaN for a vector without direction.
    """
    unit = unit_vectors(features)
    if not np.isfinite(unit).all():
        return float("nan")
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    shares = eigenvalues[eigenvalues > 1e-12]  # rounding makes zeros slightly negative
    if order == 1:
        return float(np.exp(-(shares * np.log(shares)).sum()))
    return float((shares**order).sum() ** (1 / (1 - order)))
