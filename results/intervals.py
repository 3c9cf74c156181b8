"""Intervals over training seeds.

The training seed is the unit: prompts and images of one trained model are not independent
repetitions of training, so they are averaged first, and the interval is Student's t over the
means of the seeds. A percentile bootstrap over three seeds would cover 68 % instead of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from scipy import stats

CONFIDENCE = 0.95

FEW_SEEDS = 5
"""With fewer seeds than this the single values are shown beside the interval."""


@dataclass(frozen=True)
class Interval:
    """Mean over seeds, or an aggregate over seeds and tasks, with its 95 % interval.

    ``low`` and ``high`` are NaN with fewer than two finite values, ``mean`` with none. ``values``
    keeps every seed's value, those that are not finite included; they do not enter the mean.
    """

    mean: float
    low: float
    high: float
    values: dict[int, float] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """Number of finite values."""
        return sum(math.isfinite(value) for value in self.values.values())

    @property
    def half_width(self) -> float:
        """Half the length of the interval; NaN where there is none."""
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """+1 or -1 when the whole interval lies above or below zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def t_interval(values: Mapping[int, float]) -> Interval:
    """Interval of the mean of ``values`` (seed -> value): ``mean ± t(n - 1) s / sqrt(n)``."""
    kept = dict(sorted(values.items()))
    finite = [value for value in kept.values() if math.isfinite(value)]
    n = len(finite)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, kept)
    mean = math.fsum(finite) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, kept)
    if min(finite) == max(finite):
        # The untrained model is the same for every seed; rounding must not give it a width.
        return Interval(finite[0], finite[0], finite[0], kept)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, kept)


def of_reached(values: Mapping[int, float], seeds: int) -> Interval:
    """Interval of finite ``values`` at a point that not every one of ``seeds`` seeds may reach.

    Without ends unless all do: those that do are not like those that do not.
    """
    found = t_interval(values)
    return found if found.seeds >= seeds else Interval(found.mean, math.nan, math.nan, found.values)


@lru_cache
def t_quantile(degrees: int) -> float:
    """Half the length of a 95 % t-interval in standard errors."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Interval:
    """Interval of ``values - reference`` over the seeds that both have.

    Both were evaluated from the same noise, which the difference cancels.
    """
    return t_interval({seed: values[seed] - reference[seed] for seed in values.keys() & reference})
