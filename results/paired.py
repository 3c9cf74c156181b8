"""Comparisons of two methods, paired by training seed and prompt.

Both are evaluated from the same noise on the same prompts, which their difference cancels. It is
taken within each prompt, averaged over the prompts of a seed, and tested over seeds by Student's
t; the prompts are fixed by the protocol and are no sample. Of several comparisons that answer one
question, the p-values are adjusted together (Holm 1979): with probability 95 % at least, none of
the methods called separable has no difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from results.intervals import CONFIDENCE, Interval, t_interval, t_quantile

PromptScores = Mapping[int, ArrayLike]
"""Seed to a value for each prompt, [prompts]."""

LEVEL = 1 - CONFIDENCE
"""Of the tests, over all comparisons of a family together."""


@dataclass(frozen=True)
class Comparison:
    """``method`` against ``reference``."""

    method: str
    reference: str
    difference: Interval
    """Mean over prompts of ``method - reference`` by seed, t-interval not adjusted."""
    improvement: float
    """Share of pairs of seed and prompt in which ``method`` is higher, ties counting half: the
    probability of improvement, in [0, 1]. It stands without an interval: one over few seeds would
    cover less than it says."""
    p: float
    """Of the two-sided paired t-test over seeds; NaN with fewer than two seeds."""
    p_adjusted: float
    """After Holm within the family; equal to ``p`` until a family is made."""
    planned: int
    """Seeds there were to be."""

    @property
    def sign(self) -> int:
        """+1 or -1 where the two are separable at 5 % after adjustment, else 0."""
        return int(np.sign(self.difference.mean)) if self.p_adjusted < LEVEL else 0

    @property
    def partial(self) -> bool:
        """Whether a seed is missing on either side."""
        return self.difference.seeds < self.planned


def compare(
    method: str, reference: str, scores: PromptScores, reference_scores: PromptScores, planned: int
) -> Comparison:
    """Compare over the seeds that both have; a seed with a value that is not finite is left out.

    Raises ValueError where the two do not have the same number of prompts.
    """
    seeds = sorted(scores.keys() & reference_scores.keys())
    if len({np.shape(each[seed]) for seed in seeds for each in (scores, reference_scores)}) > 1:
        raise ValueError(f"{method} and {reference} were evaluated on different prompts")
    ours = np.array([scores[seed] for seed in seeds], dtype=np.float64)
    theirs = np.array([reference_scores[seed] for seed in seeds], dtype=np.float64)
    by_prompt = np.atleast_2d(ours - theirs)  # [seeds, prompts]
    means = by_prompt.mean(axis=1) if seeds else np.empty(0)
    difference = t_interval(dict(zip(seeds, means.tolist(), strict=True)))
    finite = by_prompt[np.isfinite(by_prompt).all(axis=1)]
    improvement = float(np.mean(np.sign(finite) / 2 + 0.5)) if finite.size else math.nan
    p = p_value(difference)
    return Comparison(method, reference, difference, improvement, p, p, planned)


def p_value(difference: Interval) -> float:
    """Of the t-test that the mean of the seeds' differences is zero, two-sided.

    NaN with fewer than two finite values. Values that are all equal have no spread to test
    against: 1 if they are zero, else 0, as their interval of width zero excludes zero.
    """
    finite = [value for value in difference.values.values() if math.isfinite(value)]
    if len(finite) < 2:
        return math.nan
    if min(finite) == max(finite):
        return float(finite[0] == 0)
    degrees = len(finite) - 1
    error = difference.half_width / t_quantile(degrees)
    return float(2 * special.stdtr(degrees, -abs(difference.mean) / error))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values [comparisons]; NaN, a comparison that was not made, is not counted.

    The k-th smallest of m is multiplied by ``m - k + 1``, and no adjusted value is below one of a
    smaller p-value (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    adjusted = np.array(p_values, dtype=np.float64)
    made = np.flatnonzero(~np.isnan(adjusted))
    order = made[np.argsort(adjusted[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(adjusted[order] * factors), 1.0)
    return adjusted


def as_family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p-values adjusted together."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        replace(comparison, p_adjusted=float(value))
        for comparison, value in zip(comparisons, adjusted, strict=True)
    ]


def all_pairs(scores: Mapping[str, PromptScores], planned: Mapping[str, int]) -> list[Comparison]:
    """The family of every two methods, each later one against each earlier one.

    ``scores`` and ``planned`` by method; a pair is planned for as many seeds as either has.
    """
    return as_family(
        [
            compare(
                *(method, reference, scores[method], scores[reference]),
                planned=max(planned[method], planned[reference]),
            )
            for reference, method in combinations(scores, 2)
        ]
    )
