"""Mean squared distance within a prompt: in the features of ``lpips``, LPIPS itself."""

from __future__ import annotations

import numpy as np

from results.metrics.interface import Features, Measurement, Metric, register


@register
class SquaredDistance(Metric):
    """Mean of ``|a - b|²`` over the pairs of images of one prompt, then over prompts.

    Twice the unbiased variance of a prompt's features, summed over their dimensions. In units of
    the features, so that values of different encoders do not compare.
    """

    name = "squared_distance"
    version = "1"
    title = "Squared distance within a prompt"
    unit = "features²"
    direction = "higher"
    needs_base = False
    minimum = 2
    minimum_images = 2
    source = "Zhang et al., LPIPS, arXiv 1801.03924, in its features; their variance in any"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        # The mean over pairs is twice the unbiased variance, without a matrix of all pairs.
        values = 2 * features.var(axis=1, ddof=1).sum(axis=-1)
        return Measurement(float(np.mean(values)), per_prompt=[float(value) for value in values])
