"""Diversity at matched reward, reward at matched diversity, and hypervolume, by method.

Final scores compare methods that have gone different ways: one with more reward and less diversity
is neither better nor worse. Here all are looked at where they had come equally far. Reward levels
are shares of the way from the untrained model to best-of-n, diversity levels shares of the
untrained model's diversity, both of the same seed; they do not depend on which methods are
compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from results.anchors import Anchors, anchors
from results.bootstrap import Array
from results.curves import from_untrained
from results.intervals import Interval, of_reached, t_interval
from results.scores import (
    BASE,
    BEST_OF_N,
    cells_of,
    done_cells,
    encoders,
    final_scores,
    measure,
    methods,
    once,
)
from results.store import Run
from results.tradeoff import (
    attainment_surface,
    diversity_at_reward,
    hypervolume,
    reward_at_diversity,
)

REWARD_LEVELS = (0.25, 0.5, 1.0)
"""Shares of best-of-n's gain over the untrained model."""

DIVERSITY_LEVELS = (0.9, 0.75)
"""Shares of the untrained model's diversity."""

Point = Callable[[Array, Array, float], float]


@dataclass(frozen=True)
class Matched:
    """One quantity of a method where another has reached a level."""

    level: Interval
    """The level by seed."""
    value: Interval
    """Over the seeds that reach the level; without an interval unless all do, because those that
    do are not like those that do not."""
    seeds: int
    """Seeds that have a curve and a level, reached or not."""
    planned: int
    """Seeds there were to be."""

    @property
    def reached(self) -> int:
        """How many of ``seeds`` reach the level."""
        return len(self.value.values)


@dataclass(frozen=True)
class TradeOffRow:
    """One method on one training reward, its diversity in one encoder."""

    method: str
    encoder: str
    diversity_at: dict[float, Matched]
    """Share of best-of-n's gain to the diversity there."""
    reward_at: dict[float, Matched]
    """Share of the untrained model's diversity to the reward there."""
    hypervolume: Interval
    """Over seeds, of normalised reward and diversity (``results.anchors``): 1 is the reward of 1
    with all of the untrained model's diversity."""
    planned: int
    """Seeds there were to be."""


@once
def trade_off_table(run: Run, task: str) -> list[TradeOffRow]:
    """For each encoder, best-of-n and every method with a cell that is done."""
    return [
        _row(run, method, task, encoder)
        for encoder in encoders(run)
        for method in methods(run)
        if method != BASE and done_cells(run, method, task)
    ]


def seed_curves(run: Run, method: str, task: str, encoder: str) -> dict[int, Array]:
    """Seed to its checkpoints [checkpoints, 2], (reward, diversity), from the untrained model on.

    Best-of-n, which does not train, has the way from one sample to n. Seeds with a value that is
    not finite, or without an evaluation of the untrained model, are left out.
    """
    starts = final_scores(run, BASE, task, "reward", task)
    found = {}
    for cell in done_cells(run, method, task):
        pairs = [
            (measure(record, "reward", task), measure(record, "diversity", encoder))
            for record in from_untrained(run, cell)
        ]
        points = np.array([pair for pair in pairs if None not in pair], dtype=np.float64)
        if cell.seed in starts and len(points) and np.isfinite(points).all():
            found[cell.seed] = points
    return found


@once
def attained(run: Run, task: str, encoder: str) -> dict[str, Array]:
    """Method to the corners [corners, 2] of what at least half of its seeds attain in training."""
    surfaces = {
        method: attainment_surface(list(seed_curves(run, method, task, encoder).values()))
        for method in methods(run)
    }
    return {method: surface for method, surface in surfaces.items() if len(surface)}


def _row(run: Run, method: str, task: str, encoder: str) -> TradeOffRow:
    curves = seed_curves(run, method, task, encoder)
    planned = len(cells_of(run, method, task))
    base = final_scores(run, BASE, task, "reward", task)
    best = final_scores(run, BEST_OF_N, task, "reward", task)
    diversity = final_scores(run, BASE, task, "diversity", encoder)

    def reward_level(seed: int, share: float) -> float:
        # Exactly best-of-n's own reward at 1, which its own curve must reach.
        return (1 - share) * base.get(seed, math.nan) + share * best.get(seed, math.nan)

    def diversity_level(seed: int, share: float) -> float:
        return share * diversity.get(seed, math.nan)

    return TradeOffRow(
        method=method,
        encoder=encoder,
        diversity_at={
            share: _matched(curves, diversity_at_reward, reward_level, share, planned)
            for share in REWARD_LEVELS
        },
        reward_at={
            share: _matched(curves, reward_at_diversity, diversity_level, share, planned)
            for share in DIVERSITY_LEVELS
        },
        hypervolume=_hypervolume(
            curves,
            anchors(run, task, "reward", task),
            anchors(run, task, "diversity", encoder),
        ),
        planned=planned,
    )


def _matched(
    curves: dict[int, Array],
    point: Point,
    level_of: Callable[[int, float], float],
    share: float,
    planned: int,
) -> Matched:
    levels = {seed: level_of(seed, share) for seed in curves}
    levels = {seed: level for seed, level in levels.items() if math.isfinite(level)}
    values = {
        seed: point(curves[seed][:, 0], curves[seed][:, 1], level) for seed, level in levels.items()
    }
    finite = {seed: value for seed, value in values.items() if math.isfinite(value)}
    reached = of_reached(finite, len(levels))
    return Matched(t_interval(levels), reached, len(levels), planned)


def _hypervolume(curves: dict[int, Array], reward: Anchors, diversity: Anchors) -> Interval:
    if not (reward.usable and diversity.usable):
        return t_interval({})
    return t_interval(
        {
            seed: hypervolume(
                [(reward.normalised(x), diversity.normalised(y)) for x, y in points.tolist()]
            )
            for seed, points in curves.items()
        }
    )
