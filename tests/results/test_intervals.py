"""Intervals over seeds against SciPy's own, and what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from results import numbers
from results.intervals import paired_difference, t_interval


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 0.2, n)
    interval = t_interval(dict(enumerate(values)))
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)
    assert interval.seeds == n
    assert interval.values == dict(enumerate(values))


def test_it_covers_what_it_says() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(size=(2000, 3))
    intervals = [t_interval(dict(enumerate(draw))) for draw in draws]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    # Three standard errors of a proportion of 2000.
    assert covered == pytest.approx(0.95, abs=0.015)
    # All 27 resamples of three seeds: what the percentile bootstrap would have given.
    resamples = draws[:, np.array(list(itertools.product(range(3), repeat=3)))].mean(axis=-1)
    low, high = np.percentile(resamples, [2.5, 97.5], axis=-1)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.68, abs=0.03)


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_covers_what_it_says_of_heavy_tails_too(seeds: int, heavy: bool) -> None:
    random = np.random.default_rng([seeds, heavy])
    shape = (2000, seeds)
    draws = random.standard_t(4, shape) if heavy else random.normal(size=shape)
    intervals = [t_interval(dict(enumerate(draw))) for draw in draws]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_one_seed_and_none_have_no_interval() -> None:
    one, none = t_interval({4: 0.5}), t_interval({})
    assert one.mean == 0.5 and math.isnan(one.low) and one.seeds == 1 and one.sign == 0
    assert math.isnan(none.mean) and none.seeds == 0 and none.sign == 0


def test_equal_values_have_a_width_of_exactly_zero() -> None:
    interval = t_interval({0: 0.1, 1: 0.1, 2: 0.1})
    assert interval.low == interval.mean == interval.high == 0.1
    assert t_interval({0: 0.0, 1: 0.0}).sign == 0


def test_a_seed_that_is_not_finite_is_kept_but_not_averaged() -> None:
    interval = t_interval({0: 1.0, 1: math.nan, 2: 3.0})
    assert interval.mean == 2 and interval.seeds == 2
    assert len(interval.values) == 3
    assert t_interval({0: math.inf}).seeds == 0


def test_differences_pair_by_seed() -> None:
    base = {0: 1.0, 1: 5.0, 2: 9.0}
    method = {1: 5.5, 0: 1.4, 7: 100.0}
    difference = paired_difference(method, base)
    assert difference.values == pytest.approx({0: 0.4, 1: 0.5})
    # Unpaired, the spread of the seeds would hide the difference.
    assert difference.sign == 0 and difference.mean == pytest.approx(0.45)
    assert paired_difference({0: 1.4, 1: 5.41, 2: 9.39}, base).sign == 1
    assert paired_difference(base, {0: 1.4, 1: 5.41, 2: 9.39}).sign == -1
    assert paired_difference({9: 1.0}, base).seeds == 0


def test_numbers_show_the_digits_their_interval_supports() -> None:
    interval = t_interval({0: 0.52361, 1: 0.51117, 2: 0.53005})
    assert numbers.decimals(interval) == 3
    assert numbers.mean(interval) == "0.522"
    assert numbers.difference(interval) == "+0.522 [0.498, 0.545]"
    assert numbers.bounds(t_interval({0: 1.0})) == ""
    # Equal but for rounding: 17 decimals would be nonsense.
    assert numbers.decimals(t_interval({0: 0.1 + 0.2, 1: 0.3})) == 4


def test_a_column_does_not_round_an_interval_to_nothing() -> None:
    interval = t_interval({0: 0.7682, 1: 0.7688})
    assert numbers.difference(interval, 1) == "+0.7685 [0.7647, 0.7723]"
    assert numbers.difference(interval, 2) == "+0.77 [0.76, 0.77]"
    assert numbers.mean(t_interval({0: 0.7685}), 1) == "0.8"
    alike = t_interval({0: 0.1 + 0.2, 1: 0.3})
    assert numbers.difference(alike, 2) == "+0.30 [0.30, 0.30]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (-0.0001, "−0.000100"), (1234.5, "1,234"), (math.nan, "–")],
)
def test_single_numbers(value: float, text: str) -> None:
    assert numbers.number(value) == text


def test_a_negative_number_that_rounds_to_zero_has_no_sign() -> None:
    assert numbers.number(-0.0004, 3) == "0.000"
    assert numbers.number(-0.0004, 3, sign=True) == "+0.000"


def test_an_end_of_an_interval_that_rounds_to_zero_has_its_sign() -> None:
    holds_zero = t_interval({0: 0.03, 1: 0.09, 2: 0.118})
    assert holds_zero.low < 0 and holds_zero.sign == 0
    assert numbers.difference(holds_zero, 1) == "+0.1 [−0.0, 0.2]"
    excludes_it = t_interval({0: 0.03, 1: 0.04, 2: 0.05})
    assert excludes_it.low > 0 and excludes_it.sign == 1
    assert numbers.difference(excludes_it, 1) == "+0.0 [0.0, 0.1]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.04, "4.0 s"), (59.6, "60 s"), (125.2, "2 min 05 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text
