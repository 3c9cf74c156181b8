"""Verdicts of the regression gate.

Two groups of repetitions, those of the baseline and the new ones, are compared by Student's t on
their means with pooled variance (training seeds are the repetitions; prompts and images are
averaged before). A loss is a regression if it is larger than the declared margin *and* significant
at 5 %, one-sided, after Holm's adjustment over all comparisons of the gate. A test's rate of false
alarms is its level whatever the noise; that of a bare threshold follows the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from results.baseline import Group, Sample
from results.gate_verdicts import Verdict
from results.paired import LEVEL, holm


@dataclass(frozen=True)
class Test:
    """New mean minus old, signed so that a positive difference is better."""

    __test__ = False  # no test of pytest

    difference: float
    low: float
    high: float
    """Ends of the 90 % interval, whose either end is the bound of a one-sided test at 5 %; NaN
    where no variance can be estimated."""
    p_loss: float
    p_gain: float
    """One-sided; NaN where neither side has spread, which leaves nothing to test."""


@dataclass(frozen=True)
class Comparison:
    """One measure of one group, or a group as a whole where ``measure`` is empty."""

    group: str
    measure: str
    verdict: Verdict
    detail: str = ""
    against: str = "baseline"
    """Or ``oldest``: the values from which drift is reckoned."""
    unit: str = ""
    margin: float = math.nan
    old: tuple[float, ...] = ()
    new: tuple[float, ...] = ()
    test: Test | None = None
    p_adjusted: float = math.nan
    """Of a loss, after Holm."""
    p_gain_adjusted: float = math.nan
    gone: bool = False
    """Whether there is nothing of that name any more, not even cells that have not ended."""

    @property
    def name(self) -> str:
        """Group and measure, and what it was compared with if not the last baseline."""
        drift = " (drift since the oldest baseline)" if self.against == "oldest" else ""
        return f"{self.group}: {self.measure or 'cells'}{drift}"


@dataclass(frozen=True)
class Observed:
    """A group as it was found now."""

    group: Group | None
    """None where no cell gave numbers."""
    failed: tuple[str, ...] = ()
    """Cells that failed, each with the reason."""
    unfinished: tuple[str, ...] = ()
    """Cells that have not ended, or do not apply."""


def t_test(new: Sequence[float], old: Sequence[float], better: int = 1) -> Test:
    """Student's t with pooled variance of ``better * (mean(new) - mean(old))``; both not empty."""
    n, m = len(new), len(old)
    difference = better * (math.fsum(new) / n - math.fsum(old) / m)
    degrees = n + m - 2
    if degrees < 1:
        return Test(difference, math.nan, math.nan, math.nan, math.nan)
    if min(new) == max(new) and min(old) == max(old):
        # Rounding must not make a difference of equal values.
        difference = better * (new[0] - old[0])
        return Test(difference, difference, difference, math.nan, math.nan)
    squares = float(np.var(new) * n + np.var(old) * m)
    error = math.sqrt(squares / degrees * (1 / n + 1 / m))
    half = float(stats.t.ppf(1 - LEVEL, degrees)) * error
    p_loss = float(special.stdtr(degrees, difference / error))
    return Test(difference, difference - half, difference + half, p_loss, 1 - p_loss)


def paired_t_test(differences: Sequence[float]) -> Test:
    """Student's t of the mean of differences of pairs, new minus old, positive where better."""
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2:
        return Test(mean, math.nan, math.nan, math.nan, math.nan)
    error = float(np.std(differences, ddof=1)) / math.sqrt(n)
    if error == 0:
        return Test(mean, mean, mean, math.nan, math.nan)
    half = float(stats.t.ppf(1 - LEVEL, n - 1)) * error
    p_loss = float(special.stdtr(n - 1, mean / error))
    return Test(mean, mean - half, mean + half, p_loss, 1 - p_loss)


def compare(
    baseline: Mapping[str, Group], observed: Mapping[str, Observed], against: str = "baseline"
) -> list[Comparison]:
    """Every group of either side; verdicts of tested ones stand after :func:`adjust`."""
    found: list[Comparison] = []
    for name, old in baseline.items():
        found += _compare_group(name, old, observed.get(name), against)
    if against == "baseline":
        gone = {name: group for name, group in baseline.items() if name not in observed}
        found += [
            _new_group(name, each, gone)
            for name, each in observed.items()
            if name not in baseline and (each.group or each.failed)
        ]
    return found


def _new_group(name: str, observed: Observed, gone: Mapping[str, Group]) -> Comparison:
    """A group that the baseline does not have, with the names that it may have had there."""
    if observed.failed or observed.group is None:
        return Comparison(name, "", Verdict.FAILED, "; ".join(observed.failed))
    group = observed.group
    alike = [
        other
        for other, old in gone.items()
        if old.conditions == group.conditions and old.samples.keys() == group.samples.keys()
    ]
    renamed = f"renamed? of its kind are gone: {', '.join(alike)}" if alike else ""
    return Comparison(name, "", Verdict.NEW, _joined("not in the baseline", renamed))


def _compare_group(
    name: str, old: Group, observed: Observed | None, against: str
) -> list[Comparison]:
    def whole(verdict: Verdict, detail: str) -> list[Comparison]:
        return [Comparison(name, "", verdict, detail, against)]

    if observed is None:
        return [Comparison(name, "", Verdict.MISSING, "no such cells", against, gone=True)]
    if observed.failed:
        return whole(Verdict.FAILED, "; ".join(observed.failed))
    if observed.group is None or observed.unfinished:
        return whole(Verdict.MISSING, "; ".join(observed.unfinished) or "no numbers")
    new = observed.group
    if changed := changes(old.conditions, new.conditions):
        return whole(Verdict.PROTOCOL_CHANGED, changed)
    if old.hardware != new.hardware:
        return whole(Verdict.HARDWARE_CHANGED, f"{old.hardware} before, {new.hardware} now")
    found = [
        _compare_sample(name, measure, sample, new.samples.get(measure), against)
        for measure, sample in old.samples.items()
    ]
    if settings := changes(old.settings, new.settings):
        found = [replace(each, detail=_joined(each.detail, settings)) for each in found]
    if against == "baseline":
        found += [
            Comparison(name, measure, Verdict.NEW, "not in the baseline")
            for measure in new.samples
            if measure not in old.samples
        ]
    return found


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """``key: before -> now`` for each key whose value differs; empty if none does."""
    keys = dict.fromkeys([*old, *new])
    return ", ".join(
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in keys
        if old.get(key) != new.get(key)
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _compare_sample(
    group: str, measure: str, old: Sample, new: Sample | None, against: str
) -> Comparison:
    values = tuple(new.values.values()) if new else ()
    made = Comparison(
        group,
        measure,
        Verdict.PASS,
        against=against,
        unit=old.unit,
        margin=old.margin,
        old=tuple(old.values.values()),
        new=values,
    )
    if new is None or not values or not old.values:
        return replace(made, verdict=Verdict.MISSING, detail="no values", gone=new is None)
    if bad := [name for name, value in new.values.items() if not math.isfinite(value)]:
        return replace(made, verdict=Verdict.FAILED, detail=f"not finite: {', '.join(bad)}")
    if all(old.values.get(name) == value for name, value in new.values.items()):
        return replace(made, detail=f"the same to the last bit in {len(values)}")
    better = 1 if old.direction == "higher" else -1
    return replace(made, test=t_test(values, made.old, better))


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Verdicts of the tested comparisons, adjusted together; the others stay as they are."""
    tests = [each.test for each in comparisons]
    losses = holm([each.p_loss if each else math.nan for each in tests])
    gains = holm([each.p_gain if each else math.nan for each in tests])
    return [
        _decide(replace(each, p_adjusted=float(loss), p_gain_adjusted=float(gain)))
        if each.test
        else each
        for each, loss, gain in zip(comparisons, losses, gains, strict=True)
    ]


def _decide(each: Comparison) -> Comparison:
    """The verdict of a tested comparison."""
    test = each.test
    assert test is not None
    if abs(test.difference) <= each.margin:
        return each
    exact = test.low == test.high  # without spread on either side: the difference is no noise
    lost = test.difference < 0
    p = each.p_adjusted if lost else each.p_gain_adjusted
    if exact or p < LEVEL:
        verdict = Verdict.REGRESSION if lost else Verdict.IMPROVEMENT
        return replace(each, verdict=verdict)
    if not lost:
        return each
    why = "a loss beyond the margin that noise may explain"
    if math.isnan(p):
        why = "one value a side says nothing about noise"
    return replace(each, verdict=Verdict.INCONCLUSIVE, detail=_joined(each.detail, why))


def exit_code(comparisons: Sequence[Comparison], advisory: bool = False) -> int:
    """See ``EXIT_CODES``; ``advisory`` regressions count as inconclusive.

    A name that is gone and another that is new are taken for one that was renamed: nothing guards
    either, and a gate that passed over it would be quiet for ever.
    """
    verdicts = {each.verdict for each in comparisons}
    changed = {Verdict.PROTOCOL_CHANGED, Verdict.HARDWARE_CHANGED}
    absent = {Verdict.MISSING, Verdict.NEW}
    if Verdict.REGRESSION in verdicts and not advisory:
        return 1
    renamed = Verdict.NEW in verdicts and any(each.gone for each in comparisons)
    if verdicts & changed or renamed or not verdicts - absent:
        return 3
    return 2 if verdicts & {Verdict.FAILED, *absent} else 0
