"""Standard errors against formulas and simulations, and how often chance makes a score differ."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from results import calibration
from results.calibration import Difference, Measured, Verdict

PROMPTS, IMAGES, TIMES = 12, 4, 5_000
"""Of the simulations: few prompts, where normal tails would be wrong."""


def scores(rng: np.random.Generator, means: np.ndarray, shift: float = 0.0) -> Measured:
    """Rewards of images: their prompt's mean and noise."""
    return calibration.of_reward(means[:, None] + shift + rng.normal(size=(len(means), IMAGES)))


@functools.cache
def drawn(draw: Callable[[np.random.Generator], Difference], times: int) -> list[Difference]:
    rng = np.random.default_rng(0)
    return [draw(rng) for _ in range(times)]


def share_above(
    draw: Callable[[np.random.Generator], Difference], threshold: float, times: int = TIMES
) -> tuple[float, float]:
    """How often a difference is above the threshold, and how often it is said to be."""
    found = drawn(draw, times)
    above = sum(abs(each.errors) > threshold for each in found) / times
    return above, float(np.mean([each.false_alarm(threshold) for each in found]))


def same_prompts(rng: np.random.Generator) -> Difference:
    means = rng.normal(scale=5, size=PROMPTS)
    return calibration.paired(scores(rng, means), scores(rng, means).by_prompt)


def other_prompts(rng: np.random.Generator) -> Difference:
    stored = scores(rng, rng.normal(size=PROMPTS))
    measured = scores(rng, rng.normal(size=PROMPTS))
    return calibration.unpaired(measured, stored.value, stored.standard_error, PROMPTS)


def test_the_standard_error_is_the_formula_s() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    spread = sum((value - 4) ** 2 for value in values) / 3
    assert calibration.standard_error(values) == pytest.approx(math.sqrt(spread / 4))
    assert math.isnan(calibration.standard_error([1.0]))
    assert Measured(tuple(values), math.nan).value == 4


def test_the_unit_is_the_prompt() -> None:
    """Images of a prompt that are all alike add nothing, however many."""
    few = calibration.of_reward([[1.0], [2.0], [4.0]])
    many = calibration.of_reward([[1.0] * 50, [2.0] * 50, [4.0] * 50])
    assert many.standard_error == few.standard_error > 0
    assert many.noise == 0 and math.isnan(few.noise)


def test_differences_are_those_of_the_formulas() -> None:
    measured = Measured((1.0, 3.0, 8.0), math.nan)
    found = calibration.paired(measured, [0.0, 3.5, 6.5])
    each = np.array([1.0, -0.5, 1.5])
    assert found.value == pytest.approx(each.mean())
    assert found.standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(3))
    assert found.errors == pytest.approx(stats.ttest_rel(measured.by_prompt, [0, 3.5, 6.5])[0])
    stored = np.array([2.0, 2.5, 4.0, 1.0])
    error = stored.std(ddof=1) / 2
    apart = calibration.unpaired(measured, float(stored.mean()), error, 4)
    welch = stats.ttest_ind(measured.by_prompt, stored, equal_var=False)
    assert apart.standard_error == pytest.approx(math.hypot(measured.standard_error, error))
    assert apart.errors == pytest.approx(welch.statistic)
    assert apart.freedom == pytest.approx(welch.df)
    assert apart.false_alarm(abs(apart.errors)) == pytest.approx(welch.pvalue)


def test_a_stored_mean_without_an_error_counts_as_exact() -> None:
    measured = Measured((1.0, 3.0, 8.0), math.nan)
    found = calibration.unpaired(measured, 1.0, None, None)
    assert found.errors == pytest.approx(stats.ttest_1samp(measured.by_prompt, 1.0).statistic)
    assert found.freedom == pytest.approx(2)


def test_diversity_is_the_published_variance() -> None:
    """``sum |e_i - e_j|^2 / (2 n (n - 1))`` of unit vectors, as Adjoint Matching's release has."""
    features = np.random.default_rng(1).normal(size=(3, 5, 7))
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    squared = ((unit[:, :, None] - unit[:, None]) ** 2).sum(axis=(1, 2, 3))
    found = calibration.of_diversity(features)
    assert found.by_prompt == pytest.approx(tuple(squared / (2 * 5 * 4)))


@pytest.mark.parametrize("kind", ["reward", "diversity"])
def test_noise_is_the_spread_of_repetitions_with_the_prompts_held(kind: str) -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 1, 8)) * 2

    def draw() -> Measured:
        drawn = centres + rng.normal(size=(6, 10, 8))
        if kind == "diversity":
            return calibration.of_diversity(drawn)
        return calibration.of_reward(drawn[..., 0])

    found = [draw() for _ in range(400)]
    spread = np.std([each.value for each in found], ddof=1)
    assert np.mean([each.noise for each in found]) == pytest.approx(spread, rel=0.12)
    assert np.mean([each.standard_error for each in found]) > 1.5 * spread


@pytest.mark.parametrize("draw", [same_prompts, other_prompts])
@pytest.mark.parametrize("threshold", [2.0, 3.0])
def test_chance_makes_a_score_differ_as_often_as_stated(
    draw: Callable[[np.random.Generator], Difference], threshold: float
) -> None:
    found, stated = share_above(draw, threshold)
    assert stated > 2 * stats.norm.sf(threshold), "few prompts have heavier tails"
    assert abs(found - stated) < 4 * math.sqrt(stated / TIMES)


def test_published_values_of_the_same_prompts_raise_fewer_alarms() -> None:
    def draw(rng: np.random.Generator) -> Difference:
        means = rng.normal(scale=2, size=PROMPTS)
        stored = scores(rng, means)
        return calibration.unpaired(
            scores(rng, means), stored.value, stored.standard_error, PROMPTS
        )

    found, stated = share_above(draw, 2.0, 2000)
    assert found < stated / 4


def test_a_real_difference_is_found_and_pairing_finds_smaller_ones() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(scale=5, size=PROMPTS)
    stored, other = scores(rng, means), scores(rng, means, shift=1.5)
    paired = calibration.paired(other, stored.by_prompt)
    apart = calibration.unpaired(other, stored.value, stored.standard_error, PROMPTS)
    assert calibration.verdict(paired, 2, 3) is Verdict.DIFFERS
    assert calibration.verdict(apart, 2, 3) is Verdict.AGREES


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (0.0, Verdict.AGREES),
        (-2.0, Verdict.AGREES),
        (2.01, Verdict.DOUBTFUL),
        (-3.0, Verdict.DOUBTFUL),
        (3.01, Verdict.DIFFERS),
        (-9.0, Verdict.DIFFERS),
    ],
)
def test_verdicts(errors: float, expected: Verdict) -> None:
    assert calibration.verdict(Difference(errors, 1.0, 9, True), 2, 3) is expected


def test_what_never_varies_agrees_with_itself_alone() -> None:
    same = calibration.paired(Measured((1.0, 1.0), 0.0), [1.0, 1.0])
    assert same.errors == 0 and calibration.verdict(same, 2, 3) is Verdict.AGREES
    other = calibration.paired(Measured((1.0, 1.0), 0.0), [0.5, 0.5])
    assert other.errors == math.inf and calibration.verdict(other, 2, 3) is Verdict.DIFFERS
