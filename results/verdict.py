"""What a run shows, in sentences that its tables bear out.

A method is said to be above or below only where the paired test over seeds says so at the 5 %
level after Holm's adjustment within its family (``results.comparisons``): if nothing had an effect,
a family would name any method at all in one run of 20 at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from results import numbers
from results.analysis import TaskRow, coverage, task_table
from results.budgets import EqualBudgetComparison, equal_budget_family
from results.comparisons import family
from results.exactness import density_table
from results.intervals import FEW_SEEDS, Interval
from results.paired import Comparison
from results.scores import BEST_OF_N, encoders, is_control, tasks
from results.states import ORDER, words
from results.store import Run

Tone = Literal["good", "level", "bad", "missing"]


@dataclass(frozen=True)
class Item:
    """One method under a claim, with the difference that puts it there."""

    method: str
    comparison: Comparison | None = None
    note: str = ""

    @property
    def difference(self) -> Interval | None:
        """The difference, where there is a comparison."""
        return self.comparison.difference if self.comparison else None

    def __str__(self) -> str:
        shown = numbers.difference(self.difference) if self.difference else ""
        return " ".join(part for part in (self.method, shown, self.note) if part)


@dataclass(frozen=True)
class Claim:
    """Something that is so for the methods named; the tone says whether it speaks for them."""

    tone: Tone
    text: str
    items: list[Item]

    @property
    def differences(self) -> list[Interval]:
        """Those of the items that have one."""
        return [item.difference for item in self.items if item.difference]

    def __str__(self) -> str:
        return f"{self.text}: {'; '.join(map(str, self.items))}."


def headline(run: Run) -> str:
    """The whole run in one or two sentences."""
    rows = [row for task in tasks(run) for row in _trained(run, task)]
    if not any(row.done for row in rows):
        return "No trained cell is done: there is nothing to compare yet."
    gains = [row.gain for row in rows if row.gain and row.gain.difference.seeds > 1]
    if not gains:
        return (
            "Fewer than two seeds a cell give no interval: whether training raised the held-out "
            "reward above the base model cannot be said."
        )
    raised = sum(gain.sign > 0 for gain in gains)
    text = (
        f"Training raised the held-out reward separably above the base model in {raised} of "
        f"{numbers.count(len(gains), 'pair')} of method and reward that have two seeds or more."
    )
    points = [point for task in tasks(run) for point in equal_budget_family(run, task)]
    points = [point for point in points if point.comparison.difference.seeds > 1]
    if points:
        beaten = sum(point.comparison.sign > 0 for point in points)
        counted = all(point.best_of_n_spent > 0 for point in points)
        where = "with at least as many reward calls" if counted else "at the end of training"
        text += f" Best-of-n sampling {where} was separably beaten in {beaten} of {len(points)}."
    if max(gain.difference.seeds for gain in gains) < FEW_SEEDS:
        text += " Few seeds separate only differences far larger than their spread."
    return text


def coverage_sentence(run: Run) -> str:
    """How many cells are in which state."""
    states = coverage(run)["state"].value_counts()
    parts = [f"{states[state]} {words(state)}" for state in ORDER if state in states]
    return f"{numbers.count(len(run.cells), 'cell')}: {', '.join(parts)}."


def claims(run: Run, task: str) -> list[Claim]:
    """What the cells trained on one reward show; claims without a method are left out."""
    rows = _trained(run, task)
    found = [*_against_base(rows), *_against_best_of_n(run, task)]
    found += [*_diversity(rows, encoders(run)), *_exact(run, task), *_incomplete(rows)]
    return [claim for claim in found if claim.items]


def _trained(run: Run, task: str) -> list[TaskRow]:
    return [row for row in task_table(run, task) if not is_control(row.method)]


def _against_base(rows: list[TaskRow]) -> Iterable[Claim]:
    gains = [Item(row.method, row.gain) for row in rows if row.gain]
    yield Claim("good", "Reward above base", _with_sign(gains, 1))
    yield Claim("level", "Reward not separable from base", _with_sign(gains, 0))
    yield Claim("bad", "Reward below base", _with_sign(gains, -1))
    single = [item for item in gains if item.difference and item.difference.seeds == 1]
    yield Claim("missing", "One seed only, so no interval", single)


def _with_sign(items: list[Item], sign: int) -> list[Item]:
    """The items of two seeds or more that are separable in one direction, or for 0 in none."""
    return [
        item
        for item in items
        if item.comparison and item.comparison.difference.seeds > 1 and item.comparison.sign == sign
    ]


def _against_best_of_n(run: Run, task: str) -> Iterable[Claim]:
    points = [
        point for point in equal_budget_family(run, task) if point.comparison.difference.seeds > 1
    ]
    calls = {point.best_of_n_spent for point in points}
    where = "at the end of training"
    if calls and min(calls) > 0:
        where = f"at the same {max(calls):,.0f} reward calls"
    final = family(run, task, "reward", task).against(BEST_OF_N) if points else {}
    items = [
        Item(
            point.comparison.method,
            point.comparison,
            _budget_note(point, final[point.comparison.method]),
        )
        for point in points
    ]
    yield Claim("good", f"Beats best-of-n {where}", _with_sign(items, 1))
    yield Claim("level", f"Not separable from best-of-n {where}", _with_sign(items, 0))
    yield Claim("bad", f"Below best-of-n {where}", _with_sign(items, -1))


def _budget_note(point: EqualBudgetComparison, final: Comparison) -> str:
    if point.best_of_n_spent > 0 and not point.reached:
        return f"(after {point.spent:,.0f} calls, its whole budget)"
    if point.comparison.sign <= 0 < final.sign:
        return f"(at the end of training it beats it: {numbers.difference(final.difference)})"
    return ""


def _diversity(rows: list[TaskRow], encoder_names: list[str]) -> Iterable[Claim]:
    for encoder in encoder_names:
        changes = [Item(row.method, row.diversity_change.get(encoder)) for row in rows]
        yield Claim("bad", f"Less diverse than base ({encoder})", _with_sign(changes, -1))
        yield Claim("good", f"More diverse than base ({encoder})", _with_sign(changes, 1))


def _exact(run: Run, task: str) -> Iterable[Claim]:
    """What exact metrics show, of a model in closed form."""
    rows = density_table(run, task)
    near = [
        Item(
            row.method,
            note=f"{row.values['total_variation'].mean:.3f} from {row.target} "
            f"(floor {row.values['total_variation_floor'].mean:.3f})",
        )
        for row in rows
        if row.declares
    ]
    yield Claim("level", "Total variation from the target declared, mean over seeds", near)
    lost = [
        Item(
            row.method,
            note=f"{row.values['modes_covered'].mean:.1f} of {row.modes} modes, entropy "
            f"{numbers.number(row.values['entropy'].mean, 2)} nats against "
            f"{numbers.number(row.base_entropy, 2)} of p_base",
        )
        for row in rows
        if row.collapsed
    ]
    yield Claim("bad", "Collapsed: less than half of the base model's modes are held", lost)


def _incomplete(rows: list[TaskRow]) -> Iterable[Claim]:
    missing = []
    for row in rows:
        if row.done < row.cells:
            note = f"{row.done} of {numbers.count(row.cells, 'seed')} done"
            if row.state == "not_applicable":
                note = "does not apply"
            missing.append(Item(row.method, note=f"{note}: {row.reason}" if row.reason else note))
    yield Claim("missing", "No full result", missing)
    bad = [Item(row.method, note=bad_images(row)) for row in rows if row.bad_images]
    yield Claim("bad", "Bad images in the picked evaluation", bad)


def bad_images(row: TaskRow) -> str:
    """How many images of a row's picked evaluations are bad, by kind; empty if none is."""
    return ", ".join(
        numbers.count(number, f"{kind.replace('_', '-')} image")
        for kind, number in row.bad_images.items()
    )
