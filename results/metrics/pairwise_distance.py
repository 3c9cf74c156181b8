"""Mean pairwise cosine distance within a prompt, the suite's primary measure of diversity."""

from __future__ import annotations

import numpy as np

from results.diversity import pairwise_cosine_distance
from results.metrics.interface import Features, Measurement, Metric, register


@register
class PairwiseDistance(Metric):
    """Mean of ``1 - cosine`` over the pairs of images of one prompt, then over prompts.

    The same for 4 images a prompt as for 64, since no image is paired with itself.
    """

    name = "pairwise_distance"
    version = "1"
    title = "Diversity within a prompt"
    unit = "1 - cosine"
    direction = "higher"
    needs_base = False
    minimum = 2
    minimum_images = 2
    source = "Domingo-Enrich et al., Adjoint Matching, arXiv 2409.08861, in any features"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        values = pairwise_cosine_distance(features)
        return Measurement(float(np.mean(values)), per_prompt=values)
