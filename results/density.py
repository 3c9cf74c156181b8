"""Exact metrics of points in the plane: how far their distribution is from a known one.

Everything is on one grid of square cells. A target is given by its log-density, without its
normaliser, at points inside each cell; its probability of a cell is the mean over them, normalised
over the grid. Points outside the grid are counted in the nearest cell.

Finite samples of the target itself have metrics that are not zero: the sampling floor. It is
estimated from samples of the same size drawn from the target's cells, with a generator of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HALF_WIDTH = 3.0
CELLS = 24
"""A side; a cell is 0.25 wide, a little less than a component's deviation. Narrower cells raise the
sampling floor faster than they find anything: see docs/mixture.md."""
POINTS_IN_CELL = 6
"""A side, where the log-density is asked for."""
FLOOR_SAMPLES = 32
MODE_SHARE = 0.01
"""Least probability of a mode's basin to be counted as one."""


def edges() -> Array:
    """``[CELLS + 1]`` borders of the cells, along either axis."""
    return np.linspace(-HALF_WIDTH, HALF_WIDTH, CELLS + 1)


def grid_points() -> Array:
    """Points at which to give a log-density, ``[(CELLS * POINTS_IN_CELL)^2, 2]``."""
    n = CELLS * POINTS_IN_CELL
    axis = -HALF_WIDTH + 2 * HALF_WIDTH * (np.arange(n) + 0.5) / n
    first, second = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([first.ravel(), second.ravel()], axis=1)


def cell_means(values: Array) -> Array:
    """Values at ``grid_points`` averaged in each cell, ``[CELLS, CELLS]``."""
    return values.reshape(CELLS, POINTS_IN_CELL, CELLS, POINTS_IN_CELL).mean(axis=(1, 3))


def probabilities(log_density: Array) -> Array:
    """Cell probabilities ``[CELLS, CELLS]`` from a log-density at ``grid_points``, up to a
    constant. Cells too improbable for a float get the least one that logarithms bear."""
    means = cell_means(np.exp(log_density - log_density.max()))
    means = np.maximum(means, np.finfo(np.float64).tiny)
    return means / means.sum()


def histogram(points: Array) -> Array:
    """Counts ``[CELLS, CELLS]`` of points ``[n, 2]``; first axis, first coordinate."""
    clipped = np.clip(points, -HALF_WIDTH, HALF_WIDTH)
    return np.histogram2d(clipped[:, 0], clipped[:, 1], bins=[edges(), edges()])[0]


def outside(points: Array) -> float:
    """Share of the points that lie outside the grid."""
    return float((np.abs(points) > HALF_WIDTH).any(axis=1).mean())


def total_variation(p: Array, q: Array) -> float:
    """Half the sum of |p - q| over the cells: in [0, 1]."""
    return float(0.5 * np.abs(p - q).sum())


def divergence(p: Array, q: Array) -> float:
    """KL(p || q) in nats."""
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def entropy(p: Array) -> float:
    """Differential entropy in nats of the density that is constant in each cell."""
    there = p > 0
    area = (2 * HALF_WIDTH / CELLS) ** 2
    return float(-(p[there] * np.log(p[there] / area)).sum())


def expectation(p: Array, values: Array) -> float:
    """Mean of a function, given at ``grid_points``, under cell probabilities."""
    return float((p * cell_means(values)).sum())


def basins(p: Array) -> NDArray[np.int64]:
    """For each cell the number of the mode that steepest ascent leads to, from 0, or -1 where the
    mode's basin holds less than ``MODE_SHARE``. Modes are numbered by falling probability."""
    index = np.arange(p.size).reshape(p.shape)
    padded = np.pad(p, 1, constant_values=-1.0)
    padded_index = np.pad(index, 1)
    n, m = p.shape
    shifts = [(i, j) for i in range(3) for j in range(3)]
    around = np.stack([padded[i : i + n, j : j + m] for i, j in shifts])
    sources = np.stack([padded_index[i : i + n, j : j + m] for i, j in shifts])
    uphill = np.take_along_axis(sources, around.argmax(axis=0)[None], axis=0)[0].ravel()
    while not np.array_equal(uphill, uphill[uphill]):
        uphill = uphill[uphill]
    held = np.bincount(uphill, weights=p.ravel(), minlength=p.size)
    kept = [top for top in np.argsort(-held, kind="stable") if held[top] >= MODE_SHARE]
    number = np.full(p.size, -1)
    number[kept] = np.arange(len(kept))
    return number[uphill].reshape(p.shape)


def modes_covered(p: Array, target: Array) -> tuple[int, int]:
    """Modes of the target whose basin holds under ``p`` at least half of what the target gives it,
    and how many modes there are."""
    basin = basins(target)
    modes = int(basin.max()) + 1
    held = [(p[basin == k].sum(), target[basin == k].sum()) for k in range(modes)]
    return sum(bool(own >= 0.5 * due) for own, due in held), modes


@dataclass(frozen=True)
class Distance:
    """How far a sample is from a distribution, and how far a sample of that itself would be."""

    total_variation: float
    total_variation_floor: float
    divergence: float
    """KL of the sample's cells to the distribution, nats."""
    divergence_floor: float


def distance(counts: Array, target: Array) -> Distance:
    """Distance of a histogram to cell probabilities, with the floor for as many points."""
    n = int(counts.sum())
    p = counts / n
    random = np.random.default_rng(0)
    drawn = random.multinomial(n, target.ravel(), size=FLOOR_SAMPLES) / n
    cells = [sample.reshape(target.shape) for sample in drawn]
    return Distance(
        total_variation=total_variation(p, target),
        total_variation_floor=float(np.mean([total_variation(q, target) for q in cells])),
        divergence=divergence(p, target),
        divergence_floor=float(np.mean([divergence(q, target) for q in cells])),
    )
