"""What a run shows, in sentences that its tables bear out.

A method is said to be above or below only where the 95 % interval over seeds excludes zero. The
intervals are not corrected for their number: of 20 methods without effect, one is expected to be
called above or below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from results import numbers
from results.analysis import TaskRow, coverage, task_table
from results.curves import BestOfNComparison
from results.exactness import density_table
from results.intervals import Interval
from results.scores import CONTROLS, encoders, tasks
from results.store import Run

Tone = Literal["good", "level", "bad", "missing"]


@dataclass(frozen=True)
class Item:
    """One method under a claim, with the difference that puts it there."""

    method: str
    difference: Interval | None = None
    note: str = ""

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
    gains = [row.gain for row in rows if row.gain and row.gain.seeds > 1]
    if not gains:
        return (
            "Fewer than two seeds a cell give no interval: whether training raised the held-out "
            "reward above the base model cannot be said."
        )
    raised = sum(gain.sign > 0 for gain in gains)
    text = (
        f"Training raised the held-out reward above the base model in {raised} of "
        f"{numbers.count(len(gains), 'pair')} of method and reward that have two seeds or more, "
        "the 95\u00a0% interval over seeds excluding zero."
    )
    compared = [row.best_of_n for row in rows if row.best_of_n and row.best_of_n.equal.seeds > 1]
    if not compared:
        return text
    beaten = sum(comparison.equal.sign > 0 for comparison in compared)
    counted = all(comparison.best_of_n_calls > 0 for comparison in compared)
    where = "with at least as many reward calls" if counted else "at the end of training"
    return f"{text} Best-of-n sampling {where} was beaten in {beaten} of {len(compared)}."


def coverage_sentence(run: Run) -> str:
    """How many cells are in which state."""
    states = coverage(run)["state"].value_counts()
    order = ("done", "failed", "running", "pending", "not_applicable")
    parts = [f"{states[state]} {state.replace('_', ' ')}" for state in order if state in states]
    return f"{numbers.count(len(run.cells), 'cell')}: {', '.join(parts)}."


def claims(run: Run, task: str) -> list[Claim]:
    """What the cells trained on one reward show; claims without a method are left out."""
    rows = _trained(run, task)
    found = [*_against_base(rows), *_against_best_of_n(rows)]
    found += [*_diversity(rows, encoders(run)), *_exact(run, task), *_incomplete(rows)]
    return [claim for claim in found if claim.items]


def _trained(run: Run, task: str) -> list[TaskRow]:
    return [row for row in task_table(run, task) if row.method not in CONTROLS]


def _against_base(rows: list[TaskRow]) -> Iterable[Claim]:
    gains = [Item(row.method, row.gain) for row in rows if row.gain and row.gain.seeds]
    yield Claim("good", "Reward above base", _with_sign(gains, 1))
    yield Claim("level", "Reward not separable from base", _with_sign(gains, 0))
    yield Claim("bad", "Reward below base", _with_sign(gains, -1))
    single = [item for item in gains if item.difference and item.difference.seeds == 1]
    yield Claim("missing", "One seed only, so no interval", single)


def _with_sign(items: list[Item], sign: int) -> list[Item]:
    """The items whose interval lies on one side of zero, or for 0 on both."""
    return [
        item
        for item in items
        if item.difference and item.difference.seeds > 1 and item.difference.sign == sign
    ]


def _against_best_of_n(rows: list[TaskRow]) -> Iterable[Claim]:
    compared = [
        (row.method, row.best_of_n)
        for row in rows
        if row.best_of_n and row.best_of_n.equal.seeds > 1
    ]
    calls = {comparison.best_of_n_calls for _, comparison in compared}
    where = "at the end of training"
    if calls and min(calls) > 0:
        where = f"at the same {max(calls):,.0f} reward calls"
    items = [Item(method, it.equal, _budget_note(it)) for method, it in compared]
    beats = _with_sign(items, 1)
    yield Claim("good", f"Beats best-of-n {where}", beats)
    yield Claim("bad", f"Does not beat best-of-n {where}", [it for it in items if it not in beats])


def _budget_note(comparison: BestOfNComparison) -> str:
    if comparison.best_of_n_calls > 0 and not comparison.reached:
        return f"(after {comparison.calls:,.0f} calls, its whole budget)"
    if comparison.equal.sign <= 0 < comparison.final.sign:
        return f"(at the end of training it does: {numbers.difference(comparison.final)})"
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
    yield Claim("bad", "Bad images in the last evaluation", bad)


def bad_images(row: TaskRow) -> str:
    """How many images of a row's last evaluations are bad, by kind; empty if none is."""
    return ", ".join(
        numbers.count(number, f"{kind.replace('_', '-')} image")
        for kind, number in row.bad_images.items()
    )
