"""The page's tables of equal budgets and of what a target costs."""

from __future__ import annotations

import math

import pytest

from reports.budget_views import budgets, cost_to
from results import scores
from results.budgets import TARGET_COSTS, to_target_table
from results.matched import REWARD_LEVELS
from results.store import Run
from tests.reports.page import Page


def test_both_ledgers_stand_beside_each_other_with_the_controls(run: Run, page: str) -> None:
    parsed = Page(page)
    tables = parsed.find("table", class_="budgets")
    for task, table in zip(scores.tasks(run), tables, strict=True):
        shown = [cell for cell in parsed.find("td") if table in cell.parents]
        shown = [cell for cell in shown if "data-ledger" in cell.attributes]
        rows = budgets(run, task).rows
        assert [row.method for row in rows[:2]] == ["base", "best-of-n"]
        expected = [row.rewards[ledger].mean for row in rows for ledger in row.rewards]
        values = [float(cell.attributes["data-value"]) for cell in shown]
        assert values == pytest.approx(expected, nan_ok=True)


def test_what_a_target_costs_is_shown_and_a_miss_is_infinite(run: Run, page: str) -> None:
    parsed = Page(page)
    shown = [cell for cell in parsed.find("td") if "data-target" in cell.attributes]
    expected = [each for task in scores.tasks(run) for each in to_target_table(run, task)]
    assert len(shown) == len(expected) == (3 + 2) * len(TARGET_COSTS) * len(REWARD_LEVELS)
    for cell, each in zip(shown, expected, strict=True):
        assert (cell.attributes["data-cost"], float(cell.attributes["data-target"])) == (
            each.cost,
            each.share,
        )
        assert cell.text.strip().startswith(cost_to(each.median))
    assert cost_to(math.inf) == "∞" and cost_to(1408.2) == "1,408"
