"""Equal budgets and the cost of targets, arranged for the page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reports.shown import Shown
from results import numbers
from results.budgets import (
    LEDGERS,
    EqualBudgetComparison,
    Ledger,
    ToTarget,
    equal_budget_family,
    to_target_table,
)
from results.intervals import Interval, t_interval
from results.scores import CONTROLS, final_scores, methods
from results.store import Run


@dataclass(frozen=True)
class BudgetRow:
    """One method: its reward where it had spent as much as best-of-n, by ledger."""

    method: str
    rewards: dict[Ledger, Interval]
    points: dict[Ledger, EqualBudgetComparison]
    """Against best-of-n; empty for the controls."""


@dataclass(frozen=True)
class Budgets:
    """Both tables of one training reward."""

    rows: list[BudgetRow]
    places: int
    """Decimals of rewards."""
    targets: dict[str, list[ToTarget]]
    """By method: every share, and each cost of it."""


def budgets(run: Run, task: str, shown: Shown | None = None) -> Budgets:
    """Of ``base`` and best-of-n, which spend nothing and the budget, and every trained method.

    Of the methods ``shown``, or of all.
    """
    rows = [
        BudgetRow(name, dict.fromkeys(LEDGERS, _final(run, name, task)), {})
        for name in CONTROLS
        if name in methods(run)
    ]
    points: dict[str, dict[Ledger, EqualBudgetComparison]] = {}
    for ledger in LEDGERS:
        for point in equal_budget_family(run, task, ledger):
            points.setdefault(point.comparison.method, {})[ledger] = point
    for method, found in points.items():
        rewards = {ledger: _mean(point) for ledger, point in found.items()}
        rows.append(BudgetRow(method, rewards, found))
    targets: dict[str, list[ToTarget]] = {}
    for each in to_target_table(run, task):
        targets.setdefault(each.method, []).append(each)
    if shown is not None:
        rows = [row for row in rows if row.method in shown.methods]
        targets = {name: found for name, found in targets.items() if name in shown.methods}
    places = numbers.column_decimals(value for row in rows for value in row.rewards.values())
    return Budgets(rows, places, targets)


def _final(run: Run, control: str, task: str) -> Interval:
    return t_interval(final_scores(run, control, task, "reward", task))


def _mean(point: EqualBudgetComparison) -> Interval:
    return t_interval({seed: float(np.mean(each)) for seed, each in point.scores.items()})


def cost_to(value: float) -> str:
    """A cost as a count, or ∞ for a target that is not reached."""
    return "∞" if math.isinf(value) else numbers.number(value, 0)
