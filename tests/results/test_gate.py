"""The gate's test against SciPy, its verdicts, and how often it is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from results.baseline import Group, Sample
from results.gate import Comparison, Observed, adjust, compare, exit_code, paired_t_test, t_test
from results.gate_verdicts import Verdict

GATES = 500
CELLS = 12


def sample(values: Sequence[float], margin: float = 0.0, direction: str = "higher") -> Sample:
    named = {f"s{seed}": float(value) for seed, value in enumerate(values)}
    return Sample.model_validate(
        {"direction": direction, "unit": "", "margin": margin, "values": named}
    )


def group(values: Sequence[float], hardware: str = "cpu", **fields: object) -> Group:
    options = {key: fields.pop(key) for key in ("margin", "direction") if key in fields}
    samples = {"reward": sample(values, **options)}  # type: ignore[arg-type]
    return Group.model_validate({"hardware": hardware, "samples": samples, **fields})


def verdicts(old: dict[str, Group], new: dict[str, Observed]) -> dict[str, Verdict]:
    return {each.group: each.verdict for each in adjust(compare(old, new))}


def verdict(old: Group, new: Group | Observed) -> Verdict:
    observed = Observed(new) if isinstance(new, Group) else new
    (found,) = verdicts({"cell": old}, {"cell": observed}).values()
    return found


def test_the_test_is_scipys() -> None:
    random = np.random.default_rng(0)
    new, old = random.normal(0.8, 0.1, 3), random.normal(1, 0.1, 10)
    made = t_test(new.tolist(), old.tolist())
    expected = stats.ttest_ind(new, old, alternative="less")
    assert made.p_loss == pytest.approx(expected.pvalue, rel=1e-12)
    assert made.p_gain == pytest.approx(1 - expected.pvalue)
    low, high = stats.ttest_ind(new, old).confidence_interval(0.90)
    assert (made.low, made.high) == pytest.approx((low, high))
    lower_is_better = t_test(new.tolist(), old.tolist(), better=-1)
    assert lower_is_better.difference == -made.difference
    assert lower_is_better.p_gain == pytest.approx(made.p_loss)


def test_the_paired_test_is_scipys() -> None:
    differences = np.random.default_rng(1).normal(-0.1, 0.1, 5)
    made = paired_t_test(differences.tolist())
    expected = stats.ttest_1samp(differences, 0, alternative="less")
    assert made.p_loss == pytest.approx(expected.pvalue, rel=1e-12)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.90)
    assert (made.low, made.high) == pytest.approx((low, high))
    assert math.isnan(paired_t_test([0.1]).low)


def test_each_verdict_of_a_single_comparison() -> None:
    old = [1.0, 1.1, 0.9, 1.05, 0.95]
    for new, margin, expected in (
        ([0.5, 0.55, 0.45], 0.05, Verdict.REGRESSION),
        ([0.5, 0.55, 0.45], 0.6, Verdict.PASS),  # significant, and within the margin
        ([0.8, 1.1, 0.9], 0.05, Verdict.INCONCLUSIVE),
        ([1.5, 1.55, 1.45], 0.05, Verdict.IMPROVEMENT),
        ([1.02, 0.98, 1.03], 0.05, Verdict.PASS),
        ([math.nan, 1.0, 1.0], 0.05, Verdict.FAILED),
        ([math.inf, 1.0, 1.0], 0.05, Verdict.FAILED),
        ([], 0.05, Verdict.MISSING),
    ):
        assert verdict(group(old, margin=margin), group(new)) is expected, (new, margin)
        flipped = group([-value for value in old], margin=margin, direction="lower")
        assert verdict(flipped, group([-value for value in new])) is expected
    assert verdict(group([1.0], margin=0.1), group([0.5])) is Verdict.INCONCLUSIVE


def test_counted_work_has_no_noise() -> None:
    old = group([640.0] * 10, direction="lower")
    assert verdict(old, group([640.0] * 3)) is Verdict.PASS
    assert verdict(old, group([641.0] * 3)) is Verdict.REGRESSION
    assert verdict(old, group([639.0])) is Verdict.IMPROVEMENT


def test_the_same_bits_are_no_sample_of_anything() -> None:
    """Three of ten seeds have another mean than the ten, and nothing has changed."""
    old = [2.0, 1.0, 1.01, *[2.0 + i / 100 for i in range(7)]]
    assert verdict(group(old), group(old[:3])) is Verdict.PASS
    shifted = [value - 1.0 for value in old[:3]]
    assert verdict(group(old), group(shifted)) is Verdict.REGRESSION


def test_what_does_not_compare() -> None:
    old = group([1.0, 1.1], conditions={"protocol": "a", "budget": "8"})
    assert verdict(old, group([1.0, 1.1], conditions={"protocol": "b", "budget": "8"})) is (
        Verdict.PROTOCOL_CHANGED
    )
    assert verdict(group([1.0, 1.1]), group([1.0, 1.1], "H100")) is Verdict.HARDWARE_CHANGED
    failed = Observed(group([1.0, 1.1]), failed=("dag--style--s2 failed: out of memory",))
    assert verdict(group([1.0, 1.1]), failed) is Verdict.FAILED
    late = Observed(group([1.0, 1.1]), unfinished=("dag--style--s2 running",))
    assert verdict(group([1.0, 1.1]), late) is Verdict.MISSING
    assert verdict(group([1.0, 1.1]), Observed(None)) is Verdict.MISSING
    renamed = verdicts({"a": group([1.0, 1.1])}, {"b": Observed(group([1.0, 1.1]))})
    assert renamed == {"a": Verdict.MISSING, "b": Verdict.NEW}


def test_changed_settings_are_compared_and_told() -> None:
    old = group([1.0, 1.1], settings={"learning_rate": "0.1"})
    new = Observed(group([1.0, 1.1], settings={"learning_rate": "0.2"}))
    (found,) = adjust(compare({"cell": old}, {"cell": new}))
    assert found.verdict is Verdict.PASS and "learning_rate: 0.1 -> 0.2" in found.detail


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 3),
        ([Verdict.MISSING], 3),
        ([Verdict.MISSING, Verdict.NEW], 3),
        ([Verdict.PASS, Verdict.MISSING], 2),
        ([Verdict.PASS, Verdict.NEW], 2),
        ([Verdict.PASS, Verdict.FAILED], 2),
        ([Verdict.FAILED], 2),
        ([Verdict.PASS, Verdict.PROTOCOL_CHANGED], 3),
        ([Verdict.HARDWARE_CHANGED], 3),
        ([Verdict.REGRESSION, Verdict.MISSING, Verdict.PROTOCOL_CHANGED], 1),
        ([Verdict.PASS, Verdict.IMPROVEMENT, Verdict.INCONCLUSIVE], 0),
    ],
)
def test_exit_codes(found: list[Verdict], code: int) -> None:
    assert exit_code([Comparison("cell", "reward", verdict) for verdict in found]) == code


def test_advisory_regressions_do_not_fail_and_what_is_missing_does() -> None:
    comparisons = [Comparison("a", "seconds", Verdict.REGRESSION)]
    assert exit_code(comparisons, advisory=True) == 0
    comparisons.append(Comparison("b", "seconds", Verdict.MISSING))
    assert exit_code(comparisons, advisory=True) == 2


def rate(drop: float, heavy: bool, margin: float = 0.0, affected: int = CELLS) -> float:
    """Share of gates of 12 cells, 10 seeds against 3, that alarm; a drop is in deviations."""
    random = np.random.default_rng([heavy, int(10 * drop)])

    def draw(n: int) -> np.ndarray:
        shape = (GATES, CELLS, n)
        if heavy:
            return random.standard_t(4, shape) / math.sqrt(2)
        return random.normal(size=shape)

    alarms = 0
    old, new = draw(10), draw(3)
    new[:, :affected] -= drop
    for before, now in zip(old, new, strict=True):
        baseline = {str(cell): group(before[cell], margin=margin) for cell in range(CELLS)}
        observed = {str(cell): Observed(group(now[cell])) for cell in range(CELLS)}
        alarms += exit_code(adjust(compare(baseline, observed))) == 1
    return alarms / GATES


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
def test_false_alarms_stay_at_the_level(heavy: bool) -> None:
    """Three standard errors above 5 %; a margin makes alarms rarer still."""
    assert rate(0.0, heavy) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / GATES)


def test_a_drop_of_three_deviations_in_one_of_twelve_cells_is_found() -> None:
    """Power of the test: noncentrality 4.56 with 11 degrees, at a level of 0.05 / 12."""
    quantile = stats.t.ppf(1 - 0.05 / CELLS, 11)
    power = stats.nct.sf(quantile, 11, 3 / math.sqrt(1 / 3 + 1 / 10))
    assert power > 0.85
    # At least that power: Holm's later steps and the other cells' alarms only add to it.
    assert power - 0.04 <= rate(3.0, False, affected=1) <= power + 0.08
