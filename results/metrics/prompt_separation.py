"""How far apart the pictures of different prompts are."""

from __future__ import annotations

import numpy as np

from results.metrics.interface import Features, Measurement, Metric, register, unit_vectors


@register
class PromptSeparation(Metric):
    """Mean of ``1 - cosine`` over pairs of images of different prompts.

    Falls when every prompt is given the same background, style or subject. It says nothing about
    diversity within a prompt, which may be zero while this is high.
    """

    name = "prompt_separation"
    version = "1"
    title = "Separation of prompts"
    unit = "1 - cosine"
    direction = "higher"
    needs_base = False
    minimum = 2
    minimum_prompts = 2
    source = "this project: mean pairwise distance across prompts"

    def compute(self, features: Features, base: Features | None) -> Measurement:
        # The mean cosine of two prompts' images is the product of their mean unit vectors.
        means = unit_vectors(features).mean(axis=1)
        cosines = means @ means.T
        first, second = np.triu_indices(len(means), k=1)
        return Measurement(float(1 - cosines[first, second].mean()))
