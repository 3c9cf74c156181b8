"""Balls around images that reach to their nearest neighbours, which four metrics count in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from results.metrics.interface import Features, flat

NEIGHBOURS = 3
"""A ball reaches to this neighbour of its centre, itself not counted. Few enough that with four
images a prompt it does not reach to other prompts."""
MINIMUM_IMAGES = 16
"""Fewer images, and a single one moves a share by more than 0.06."""
CONDITIONS = {"neighbours": float(NEIGHBOURS)}


def inside(points: Features, centres: Features) -> NDArray[np.bool_]:
    """Whether each of n points lies in the ball of each of m centres, ``[n, m]``.

    All prompts together; distances are Euclidean, and the edge does not belong to the ball.
    """
    x, y = flat(points), flat(centres)
    # The nearest of all is the centre itself.
    radii = np.partition(distances(y, y), NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    return distances(x, y) < radii


def distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of rows, ``[n, m]``; exactly 0 between equal ones."""
    return np.stack([np.sqrt(((row - y) ** 2).sum(axis=1)) for row in x])
