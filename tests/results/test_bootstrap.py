"""The corrected stratified bootstrap: what it covers, and that it repeats itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.aggregates import interquartile_mean
from results.bootstrap import corrected_bootstrap

REPEATS = 2000


def drawn(seeds: int, tasks: int, heavy: bool) -> np.ndarray:
    """Scores [repeats, seeds, tasks] about zero, normal or of Student's t with 4 degrees."""
    random = np.random.default_rng([seeds, tasks, heavy])
    shape = (REPEATS, seeds, tasks)
    return random.standard_t(4, shape) if heavy else random.normal(size=shape)


def coverage(scores: np.ndarray, resamples: int) -> float:
    """How often the interval of the interquartile mean holds zero, its expectation."""
    _, low, high = corrected_bootstrap(scores, interquartile_mean, resamples)
    return float(np.mean((low <= 0) & (high >= 0)))


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
@pytest.mark.parametrize(("seeds", "tasks"), [(3, 3), (5, 3)])
def test_it_covers_what_it_says(seeds: int, tasks: int, heavy: bool) -> None:
    assert coverage(drawn(seeds, tasks, heavy), 300) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
@pytest.mark.parametrize(("seeds", "tasks"), [(3, 3), (3, 10), (5, 5), (10, 5)])
def test_it_covers_what_it_says_with_all_resamples(seeds: int, tasks: int, heavy: bool) -> None:
    assert coverage(drawn(seeds, tasks, heavy), 2000) == pytest.approx(0.95, abs=0.02)


def test_the_usual_quantiles_would_not() -> None:
    scores = drawn(3, 3, False)
    random = np.random.default_rng(0)
    chosen = random.integers(0, 3, (300, 1, 3, 3))
    again = np.take_along_axis(scores[None], chosen, axis=2)
    low, high = np.percentile(interquartile_mean(again), [2.5, 97.5], axis=0)
    assert np.mean((low <= 0) & (high >= 0)) < 0.92


def test_of_the_mean_it_is_the_closed_form() -> None:
    # The bootstrap's variance of a mean is s^2 (n - 1) / n^2, so corrected it is s^2 / n.
    scores = np.random.default_rng(1).normal(size=(6, 4))
    estimate, low, high = corrected_bootstrap(
        scores, lambda array: array.mean(axis=(-2, -1)), resamples=200_000
    )
    error = math.sqrt(np.sum(scores.var(axis=0, ddof=1) / 6)) / 4
    half = stats.t.ppf(0.975, 4 * 5) * error
    assert estimate == pytest.approx(scores.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.01)


def test_the_same_scores_give_the_same_interval_to_the_bit() -> None:
    scores = drawn(3, 3, False)[0]
    first = corrected_bootstrap(scores, interquartile_mean)
    np.random.seed(7)
    before = repr(np.random.get_state())
    second = corrected_bootstrap(scores, interquartile_mean)
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]
    assert repr(np.random.get_state()) == before
    other = corrected_bootstrap(scores, interquartile_mean, random_seed=1)
    assert other[0] == first[0] and other[1] != first[1]


def test_one_seed_has_no_interval_and_equal_scores_one_of_width_zero() -> None:
    estimate, low, high = corrected_bootstrap([[1.0, 3.0]], interquartile_mean)
    assert estimate == 2 and np.isnan(low) and np.isnan(high)
    estimate, low, high = corrected_bootstrap(np.full((3, 2), 0.1), interquartile_mean)
    assert low == estimate == high


@pytest.mark.parametrize("scores", [[[1.0, math.nan]], np.empty((0, 3)), [1.0, 2.0]])
def test_what_is_missing_is_refused(scores: object) -> None:
    with pytest.raises(ValueError, match="scores must be"):
        corrected_bootstrap(scores, interquartile_mean)  # type: ignore[arg-type]
