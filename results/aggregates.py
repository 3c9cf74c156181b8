"""Scores put together over tasks: interquartile mean and performance profile.

Both as Agarwal et al. define them (arXiv 2108.13264, section 4). They take complete blocks only: a
seed enters with its scores on all tasks or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from results.anchors import anchors
from results.bootstrap import Array, corrected_bootstrap
from results.intervals import CONFIDENCE, Interval
from results.scores import Kind, Scores, cells_of, encoders, final_scores, methods, once, tasks
from results.store import Run


def interquartile_mean(scores: ArrayLike) -> Array:
    """Mean of the middle half of all scores [..., seeds, tasks], returned [...].

    A quarter of the scores, rounded down, is cut at either end: with fewer than four scores, it is
    the mean.
    """
    scores = np.asarray(scores, dtype=np.float64)
    flat = scores.reshape(*scores.shape[:-2], -1)
    return np.asarray(stats.trim_mean(flat, 0.25, axis=-1))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of the scores [seeds, tasks] above each of ``thresholds`` [points], returned [points].

    With equally many seeds in each task that is also the mean over tasks of each task's share.
    """
    limits = np.asarray(thresholds, dtype=np.float64)[:, None, None]
    above = np.asarray(scores, dtype=np.float64) > limits  # [points, seeds, tasks]
    return np.asarray(above.mean(axis=(-2, -1)))


def profile_band(scores: ArrayLike, thresholds: ArrayLike) -> tuple[Array, Array]:
    """Low and high end of the pointwise 95 % interval of ``performance_profile``, each [points].

    Clopper and Pearson's for as many trials as there are scores. Tasks of different difficulty make
    shares less dispersed than the binomial distribution, so it covers at least what it says. The
    bootstrap does not: where nearly all scores lie on one side, its interval shrinks to nothing.
    """
    trials = np.asarray(scores).size
    hits = performance_profile(scores, thresholds) * trials
    tail = (1 - CONFIDENCE) / 2
    # The distribution is not defined for 0 of one kind, where the end is that of the scale.
    low = stats.beta.ppf(tail, np.maximum(hits, 0.5), trials - hits + 1)
    high = stats.beta.ppf(1 - tail, hits + 1, np.maximum(trials - hits, 0.5))
    return np.where(hits > 0.5, low, 0.0), np.where(hits < trials - 0.5, high, 1.0)


@dataclass(frozen=True)
class Blocks:
    """Scores of one method by seed, over the same tasks."""

    seeds: list[int]
    """Seeds with a finite score on every task."""
    scores: Array
    """Those scores, [seeds, tasks]."""
    planned: int
    """Seeds there were to be."""

    @property
    def partial(self) -> bool:
        """Whether a seed is missing."""
        return len(self.seeds) < self.planned


def complete_blocks(scores: Sequence[Mapping[int, float]], planned: int) -> Blocks:
    """The seeds that have a finite score in every mapping (seed to score, one a task)."""
    common = sorted(set.intersection(*(set(task) for task in scores))) if scores else []
    seeds = [seed for seed in common if all(np.isfinite(task[seed]) for task in scores)]
    table = [[task[seed] for task in scores] for seed in seeds]
    return Blocks(seeds, np.array(table, dtype=np.float64).reshape(-1, len(scores)), planned)


def aggregate(blocks: Blocks) -> Interval:
    """Interquartile mean over seeds and tasks with its corrected bootstrap interval.

    ``values`` of the result are the interquartile means of the single seeds.
    """
    if not blocks.seeds:
        return Interval(math.nan, math.nan, math.nan)
    estimate, low, high = map(float, corrected_bootstrap(blocks.scores, interquartile_mean))
    single = interquartile_mean(blocks.scores[:, None, :])  # [seeds]
    values = dict(zip(blocks.seeds, map(float, single), strict=True))
    return Interval(estimate, low, high, values)


@dataclass(frozen=True)
class AggregateRow:
    """One method over all training rewards, in one measure."""

    method: str
    kind: Kind
    name: str
    """Of the encoder; empty for the reward."""
    blocks: Blocks
    value: Interval
    """See ``aggregate``; without a mean if there is no complete seed."""
    missing: list[str]
    """Training rewards on which no seed has a normalised score."""


@once
def aggregate_table(run: Run) -> list[AggregateRow]:
    """Every method's normalised reward, then its diversity in each encoder, over all tasks.

    Empty for a run of fewer than two training rewards: there is nothing to put together.
    """
    if len(tasks(run)) < 2:
        return []
    measures: list[tuple[Kind, str]] = [("reward", "")]
    measures += [("diversity", name) for name in encoders(run)]
    return [_row(run, method, kind, name) for kind, name in measures for method in methods(run)]


def _row(run: Run, method: str, kind: Kind, name: str) -> AggregateRow:
    scores = [normalised_scores(run, method, task, kind, name) for task in tasks(run)]
    blocks = complete_blocks(scores, max(len(cells_of(run, method, task)) for task in tasks(run)))
    missing = [
        task
        for task, of_task in zip(tasks(run), scores, strict=True)
        if not any(map(math.isfinite, of_task.values()))
    ]
    return AggregateRow(method, kind, name, blocks, aggregate(blocks), missing)


def normalised_scores(run: Run, method: str, task: str, kind: Kind, name: str) -> Scores:
    """Final scores in units of the anchors (``results.anchors``); NaN where these are missing."""
    measure = name or task
    fixed = anchors(run, task, kind, measure)
    values = final_scores(run, method, task, kind, measure)
    return {seed: fixed.normalised(value) for seed, value in values.items()}
