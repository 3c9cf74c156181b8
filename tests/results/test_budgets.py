"""Budgets that are equal, and what targets cost, against the records by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from results import budgets, records, store
from results.budgets import EqualBudgetComparison, ToTarget
from results.store import Run
from tests.results.synthetic import BUDGET, Synthetic


def final(run: Run, cell_id: str) -> float:
    return float(np.mean(run.cells[cell_id].evaluations[-1].rewards["style"]))


def compared(run: Run, method: str, ledger: budgets.Ledger) -> EqualBudgetComparison:
    family = budgets.equal_budget_family(run, "style", ledger)
    return next(each for each in family if each.comparison.method == method)


def to_target(run: Run, method: str, cost: str, share: float) -> ToTarget:
    table = budgets.to_target_table(run, "style")
    return next(e for e in table if (e.method, e.cost, e.share) == (method, cost, share))


def test_the_ledgers_give_different_points_of_one_curve(run: Run) -> None:
    of_calls, of_samples = (
        compared(run, "dag", "reward_calls"),
        compared(run, "dag", "unet"),
    )
    assert of_calls.spent == of_calls.best_of_n_spent == BUDGET
    assert of_samples.spent == of_samples.best_of_n_spent == BUDGET * 20
    for seed in (0, 1, 2):
        base = final(run, f"base--none--s{seed}")
        first, second = (
            float(np.mean(record.rewards["style"]))
            for record in run.cells[f"dag--style--s{seed}"].evaluations[:2]
        )
        # 40 UNet samples an image of 128, and evaluations after 32 and 64 of them.
        share = (BUDGET * 20 - 1280) / 1280
        expected = first + (second - first) * share
        assert 0 < share <= 1
        assert np.mean(of_samples.scores[seed]) == pytest.approx(expected)
        # 11 reward calls an image: the budget is spent before the first evaluation.
        early = base + (first - base) * BUDGET / 352
        assert np.mean(of_calls.scores[seed]) == pytest.approx(early)


def test_a_target_costs_what_was_spent_when_it_was_first_reached(run: Run) -> None:
    found = to_target(run, "dag", "reward_calls", 1.0)
    assert list(found.values) == [0, 1, 2] and found.reached == found.planned == 3
    for seed, spent in found.values.items():
        level = final(run, f"best-of-n--style--s{seed}")
        curve = [final(run, f"base--none--s{seed}")]
        curve += [
            float(np.mean(record.rewards["style"]))
            for record in run.cells[f"dag--style--s{seed}"].evaluations
        ]
        after = next(i for i, reward in enumerate(curve) if reward >= level)
        share = (level - curve[after - 1]) / (curve[after] - curve[after - 1])
        assert spent == pytest.approx(352 * (after - 1 + share))
    assert found.median == pytest.approx(sorted(found.values.values())[1])
    samples = to_target(run, "dag", "unet", 1.0)
    for seed, spent in samples.values.items():
        assert spent == pytest.approx(found.values[seed] / 11 * 40)


def test_a_miss_is_infinite_and_not_left_out(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    for seed in (0, 1):
        path = store.cell_folder(folder, f"best-of-n--style--s{seed}") / "evaluations.jsonl"
        (record,) = store.read_jsonl(path, records.EvaluationRecord)
        record.rewards["style"] = [[9.0] * 4] * 4
        store.write_jsonl(path, [record])
    found = to_target(store.read_run(folder), "dag", "training_seconds", 1.0)
    assert [math.isinf(value) for value in found.values.values()] == [True, True, False]
    assert found.reached == 1 and math.isinf(found.median)


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([3.0], 3.0),
        ([1.0, 3.0], 2.0),
        ([1.0, math.inf], math.inf),
        ([1.0, 2.0, math.inf], 2.0),
        ([1.0, math.inf, math.inf], math.inf),
        ([1.0, 2.0, math.inf, math.inf], math.inf),
    ],
)
def test_the_median_of_misses(values: list[float], median: float) -> None:
    found = ToTarget("dag", "unet", 1.0, dict(enumerate(values)), len(values))
    assert found.median == median
    assert math.isnan(ToTarget("dag", "unet", 1.0, {}, 2).median)


def test_what_the_untrained_model_has_reached_costs_nothing(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    for seed in (0, 1):
        path = store.cell_folder(folder, f"best-of-n--style--s{seed}") / "evaluations.jsonl"
        (record,) = store.read_jsonl(path, records.EvaluationRecord)
        record.rewards["style"] = [[0.0] * 4] * 4
        store.write_jsonl(path, [record])
    found = to_target(store.read_run(folder), "ddpo", "unet", 0.5)
    assert found.values == {0: 0.0}  # seed 1 failed
