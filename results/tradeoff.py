"""What a method gives up of one quantity for another, along its checkpoints.

A curve is the way of one seed through the evaluations of its training, from the untrained model on.
All functions take one seed; summaries over seeds are made of what they return, since a curve
averaged over seeds can pass where no seed did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike

from results.bootstrap import Array

REFERENCE = (0.0, 0.0)
"""Reference point of the hypervolume in normalised reward and diversity: no gain over the untrained
model, no diversity."""


def at_level(driver: ArrayLike, follower: ArrayLike, level: float) -> float:
    """``follower`` where ``driver`` first reaches ``level``, both [checkpoints] in training order.

    The curve between two checkpoints is straight. Reaching is from the side on which the curve
    starts: a reward rises to its level, a diversity falls to its. NaN if it never does, or if the
    curve is not finite so far.
    """
    x = np.asarray(driver, dtype=np.float64)
    y = np.asarray(follower, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"a curve needs two equally long rows, not {x.shape} and {y.shape}")
    if x[0] == level:
        return float(y[0])
    side = np.sign(x[0] - level)
    for i in range(1, len(x)):
        if not math.isfinite(side * (x[i] - x[i - 1])):
            return math.nan
        if side * (x[i] - level) <= 0:
            share = (level - x[i - 1]) / (x[i] - x[i - 1])
            return float(y[i - 1] + share * (y[i] - y[i - 1]))
    return math.nan


def diversity_at_reward(reward: ArrayLike, diversity: ArrayLike, level: float) -> float:
    """Diversity where the reward has first risen to ``level``; both curves [checkpoints].

    That of the start where the untrained model is there already; NaN if the reward never is.
    """
    reward = np.asarray(reward, dtype=np.float64)
    if len(reward) and reward[0] >= level:
        return float(np.asarray(diversity, dtype=np.float64)[0])
    return at_level(reward, diversity, level)


def reward_at_diversity(reward: ArrayLike, diversity: ArrayLike, level: float) -> float:
    """Reward where the diversity has first fallen to ``level``; both curves [checkpoints].

    That of the start where the untrained model is as low already; NaN if it never falls so far.
    """
    diversity = np.asarray(diversity, dtype=np.float64)
    if len(diversity) and diversity[0] <= level:
        return float(np.asarray(reward, dtype=np.float64)[0])
    return at_level(diversity, reward, level)


def hypervolume(points: ArrayLike, reference: Sequence[float] = REFERENCE) -> float:
    """Area that ``points`` [points, 2] dominate beyond ``reference``, both coordinates maximised.

    0 where no point exceeds the reference in both; NaN if a coordinate is not finite.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        return math.nan
    if len(points) == 0:
        return 0.0
    return float(moocore.hypervolume(points, ref=list(reference), maximise=True))


def attainment_surface(curves: Sequence[ArrayLike], share: float = 0.5) -> Array:
    """Corners of the region that at least ``share`` of the seeds attain, [corners, 2].

    ``curves`` has the points [checkpoints, 2] of each seed, both coordinates maximised. A seed
    attains all that is at most as high, in both, as one of its checkpoints. The corners are those
    points of the region that no other of it exceeds, by rising first coordinate: the empirical
    attainment function of Fonseca et al. at one level. Empty without curves.
    """
    sets = [np.asarray(curve, dtype=np.float64).reshape(-1, 2) for curve in curves]
    sets = [points for points in sets if len(points)]
    if not sets:
        return np.empty((0, 2))
    # The library minimises.
    stacked = -np.concatenate(sets)
    which = np.repeat(np.arange(len(sets)), [len(points) for points in sets])
    surface = moocore.eaf(stacked, which, percentiles=[100 * share])
    corners = -surface[:, :2]
    return np.asarray(corners[np.argsort(corners[:, 0], kind="stable")])
