"""Paired comparisons against SciPy, Holm by hand, and false alarms where there is nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.paired import all_pairs, as_family, compare, holm
from results.tiers import tiers

REPEATS = 2000


def by_seed(values: np.ndarray) -> dict[int, np.ndarray]:
    return dict(enumerate(values))


def test_difference_interval_and_p_are_scipys() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(1, 0.3, (4, 6)), random.normal(0.8, 0.3, (4, 6))
    made = compare("a", "b", by_seed(ours), by_seed(theirs), planned=4)
    expected = stats.ttest_rel(ours.mean(axis=1), theirs.mean(axis=1))
    low, high = expected.confidence_interval(0.95)
    assert made.p == pytest.approx(expected.pvalue) and not made.partial
    assert (made.difference.low, made.difference.high) == pytest.approx((low, high))
    assert made.improvement == pytest.approx(np.mean(ours > theirs))


def test_ties_count_half() -> None:
    made = compare("a", "b", {0: [1.0, 2.0, 3.0]}, {0: [1.0, 1.0, 4.0]}, planned=1)
    assert made.improvement == pytest.approx(0.5)


def test_pairing_by_seed_cancels_what_both_share() -> None:
    shared = np.random.default_rng(1).normal(0, 10, (5, 1))
    noise = np.random.default_rng(2).normal(0, 0.1, (5, 8))
    made = compare("a", "b", by_seed(shared + noise + 0.5), by_seed(shared + 0 * noise), 5)
    assert made.p < 0.001 and made.sign == 1


def test_missing_seeds_and_values_are_left_out_and_counted() -> None:
    ours = {0: [1.0, 2.0], 1: [math.nan, 2.0], 2: [2.0, 2.0], 7: [0.0, 0.0]}
    made = compare("a", "b", ours, {seed: [0.0, 0.0] for seed in (0, 1, 2)}, planned=4)
    assert made.difference.seeds == 2 and made.partial and made.improvement == 1
    none = compare("a", "b", {}, {0: [1.0]}, planned=1)
    assert math.isnan(none.p) and none.sign == 0 and math.isnan(none.improvement)
    one = compare("a", "b", {0: [2.0]}, {0: [1.0]}, planned=1)
    assert math.isnan(one.p) and one.sign == 0 and one.improvement == 1


def test_differences_without_spread_are_decided_by_being_zero() -> None:
    same = compare("a", "b", {0: [1.0], 1: [2.0]}, {0: [1.0], 1: [2.0]}, 2)
    assert same.p == 1 and same.sign == 0
    shifted = compare("a", "b", {0: [1.0], 1: [1.0]}, {0: [0.5], 1: [0.5]}, 2)
    assert shifted.p == 0 and shifted.sign == 1


def test_other_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="different prompts"):
        compare("a", "b", {0: [1.0, 2.0]}, {0: [1.0]}, 1)


def test_holm_by_hand() -> None:
    # 4 x 0.01, 3 x 0.02, then 2 x 0.025 raised to 0.06, then 0.5.
    assert holm([0.5, 0.01, 0.025, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    adjusted = holm([math.nan, 0.01, 0.04])
    assert math.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([0.02, 0.04])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_a_difference_covers_what_it_says(seeds: int, heavy: bool) -> None:
    random = np.random.default_rng([seeds, heavy])
    shape = (REPEATS, 2, seeds, 1)
    effects = random.standard_t(4, shape) if heavy else random.normal(size=shape)
    # Prompts differ among themselves and within a seed, alike for both methods but for a noise.
    prompts = random.normal(size=(REPEATS, 1, 1, 6)) + random.normal(size=(REPEATS, 2, seeds, 6))
    covered = 0
    for ours, theirs in effects + prompts:
        difference = compare("a", "b", by_seed(ours), by_seed(theirs), seeds).difference
        covered += difference.low <= 0 <= difference.high
    assert covered / REPEATS == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
def test_a_family_without_effects_raises_few_false_alarms(heavy: bool) -> None:
    random = np.random.default_rng(heavy)
    shape = (REPEATS, 4, 5, 3)
    scores = random.standard_t(4, shape) if heavy else random.normal(size=shape)
    alarms, unadjusted, split = 0, 0, 0
    for run in scores:
        methods = {f"method {i}": by_seed(values) for i, values in enumerate(run)}
        family = all_pairs(methods, dict.fromkeys(methods, 5))
        alarms += any(each.sign for each in family)
        unadjusted += any(each.p < 0.05 for each in family)
        means = {f"method {i}": float(values.mean()) for i, values in enumerate(run)}
        split += len(set(tiers(means, family).values())) > 1
    # Three standard errors above the level; without Holm it would be far above.
    assert alarms / REPEATS <= 0.05 + 0.015
    assert split / REPEATS <= 0.05 + 0.015
    assert unadjusted / REPEATS > 0.1


def test_an_effect_is_found() -> None:
    random = np.random.default_rng(5)
    scores = {name: by_seed(random.normal(0, 0.1, (5, 4))) for name in ("a", "b")}
    scores["c"] = by_seed(random.normal(1, 0.1, (5, 4)))
    family = all_pairs(scores, dict.fromkeys(scores, 5))
    assert {(each.method, each.reference): each.sign for each in family} == {
        ("b", "a"): 0,
        ("c", "a"): 1,
        ("c", "b"): 1,
    }
    assert tiers({"a": 0.0, "b": 0.1, "c": 1.0}, family) == {"a": 2, "b": 2, "c": 1}


def test_a_method_that_nothing_tests_has_no_tier() -> None:
    scores = {"a": {0: [1.0], 1: [1.1]}, "b": {0: [3.0], 1: [3.1]}, "one seed": {0: [9.0]}}
    family = all_pairs(scores, dict.fromkeys(scores, 2))
    assert set(tiers({"a": 1.05, "b": 3.05, "one seed": 9.0}, family)) == {"a", "b"}
    assert tiers({"a": 1.0}, as_family([])) == {}
