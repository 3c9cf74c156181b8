"""Diversity of the pictures of one prompt.

Pooling pictures of different prompts would hide a collapse: one picture a prompt, always the
same, looks diverse as long as the prompts differ. The mean is over pairs of different pictures,
so that it does not depend on how many there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pairwise_cosine_distance(features: ArrayLike) -> list[float]:
    """Mean over pairs of ``1 - cosine`` within each prompt.

    ``features`` [prompts, images, width], of any scale; images >= 2. Returns one value in [0, 2]
    a prompt, 0 when all its images are alike; NaN for a prompt with a feature vector that is
    zero or not finite, because it has no direction. Raises ValueError for another shape.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(
            f"diversity needs features [prompts, images >= 2, width], not {list(features.shape)}"
        )
    images = features.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
        cosine = unit @ unit.swapaxes(-1, -2)  # [prompts, images, images]
    upper = np.triu_indices(images, k=1)
    distance = 1 - cosine[:, upper[0], upper[1]].mean(axis=-1)
    # Rounding puts equal pictures at -1e-16.
    return [float(value) for value in np.clip(distance, 0, 2)]
