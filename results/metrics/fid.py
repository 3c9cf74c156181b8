"""Fréchet distance from the base model's images, refused below its floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.metrics.interface import Features, Measurement, Metric, Refused, flat, register


@register
class Fid(Metric):
    """Fréchet distance between normal distributions fitted to the two models' features.

    It is biased by the number of images far beyond the differences between methods: two samples
    of one distribution are hundreds apart at 256 images of 2048 features. So it is computed from
    10,000 images on, and from more images than features; ``kid`` is unbiased at any number.
    """

    name = "fid"
    version = "1"
    title = "Fréchet distance to base"
    unit = "squared distance"
    direction = "lower"
    needs_base = True
    minimum = 10_000
    source = "Heusel et al., TTUR, arXiv 1706.08500, eq. 6 and appendix A1 for the number of images"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        assert base is not None
        x, y = flat(features), flat(base)
        if len(x) <= x.shape[1]:
            raise Refused(
                f"{self.name} needs more images than features, or its covariances are singular: "
                f"{len(x):,} images of {x.shape[1]:,} features"
            )
        return Measurement(frechet_distance(x, y), conditions={"images": float(len(x))})


def frechet_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^1/2)`` of rows ``[n, width]``."""
    difference = x.mean(axis=0) - y.mean(axis=0)
    covariances = [np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (x, y)]
    # C_x C_y has the eigenvalues of the symmetric C_x^1/2 C_y C_x^1/2, which are not negative.
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0)
    traces = sum(float(np.trace(covariance)) for covariance in covariances)
    return float(difference @ difference + traces - 2 * np.sqrt(product).sum())
