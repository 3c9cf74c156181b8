"""The trade-off table against the same numbers computed from the records by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from results import matched, records, store
from results.intervals import t_interval
from results.store import Run
from tests.results.synthetic import Synthetic


def value(record: records.EvaluationRecord) -> tuple[float, float]:
    return float(np.mean(record.rewards["style"])), float(np.mean(record.diversity["scorer"]))


def row_of(run: Run, method: str) -> matched.TradeOffRow:
    rows = matched.trade_off_table(run, "style")
    return next(row for row in rows if (row.method, row.encoder) == (method, "scorer"))


def test_diversity_at_matched_reward_is_interpolated_by_seed(run: Run) -> None:
    at = row_of(run, "alignprop").diversity_at[0.25]
    expected = {}
    for seed in (0, 1, 2):
        base = value(run.cells[f"base--none--s{seed}"].evaluations[-1])
        best = value(run.cells[f"best-of-n--style--s{seed}"].evaluations[-1])
        first = value(run.cells[f"alignprop--style--s{seed}"].evaluations[0])
        level = base[0] + 0.25 * (best[0] - base[0])
        # alignprop is past best-of-n at its first evaluation.
        assert first[0] > level
        share = (level - base[0]) / (first[0] - base[0])
        expected[seed] = base[1] + share * (first[1] - base[1])
    assert at.value.values == pytest.approx(expected) and at.reached == at.seeds == at.planned == 3
    assert at.value.low == pytest.approx(t_interval(expected).low)


def test_best_of_n_itself_is_at_its_own_reward(run: Run) -> None:
    at = row_of(run, "best-of-n").diversity_at[1.0]
    ends = {
        seed: value(run.cells[f"best-of-n--style--s{seed}"].evaluations[-1])[1]
        for seed in (0, 1, 2)
    }
    assert at.value.values == pytest.approx(ends)


def flattened(folder: Path, cell_id: str) -> None:
    """A cell that never gains anything."""
    path = store.cell_folder(folder, cell_id) / "evaluations.jsonl"
    low = [[0.0] * 4] * 4
    evaluations = store.read_jsonl(path, records.EvaluationRecord)
    store.write_jsonl(
        path,
        [
            each.model_copy(update={"rewards": {**each.rewards, "style": low}})
            for each in evaluations
        ],
    )


def test_a_level_that_some_seeds_never_reach_has_no_interval(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    flattened(folder, "dag--style--s1")
    at = row_of(store.read_run(folder), "dag").diversity_at[0.5]
    assert (at.reached, at.seeds, at.planned) == (2, 3, 3)
    assert sorted(at.value.values) == [0, 2] and math.isnan(at.value.low)
    for seed in (0, 2):
        flattened(folder, f"dag--style--s{seed}")
    row = row_of(store.read_run(folder), "dag")
    assert row.diversity_at[0.5].reached == 0 and row.diversity_at[0.5].seeds == 3
    assert row.hypervolume.mean == 0


def test_seeds_that_failed_are_planned_and_not_there(run: Run) -> None:
    row = row_of(run, "ddpo")
    assert row.diversity_at[0.25].seeds == 2 and row.planned == 3
    assert sorted(row.hypervolume.values) == [0, 2]


def test_hypervolume_is_by_seed_in_units_of_the_controls(run: Run) -> None:
    best = row_of(run, "best-of-n").hypervolume
    base = np.mean([value(run.cells[f"base--none--s{s}"].evaluations[-1]) for s in (0, 1, 2)], 0)
    ends = [value(run.cells[f"best-of-n--style--s{s}"].evaluations[-1]) for s in (0, 1, 2)]
    gain = np.mean([end[0] for end in ends]) - base[0]
    for seed, end in enumerate(ends):
        expected = (end[0] - base[0]) / gain * end[1] / base[1]
        assert best.values[seed] == pytest.approx(expected)


def test_attained_surfaces_hold_the_controls(run: Run) -> None:
    surfaces = matched.attained(run, "style", "scorer")
    assert set(surfaces) == {"base", "best-of-n", "dag", "ddpo", "alignprop"}
    assert surfaces["base"].shape == (1, 2)
    assert (np.diff(surfaces["alignprop"][:, 0]) > 0).all()


def test_without_controls_nothing_can_be_matched(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    for seed in (0, 1):
        (store.cell_folder(folder, f"best-of-n--style--s{seed}") / "status.json").unlink()
    row = row_of(store.read_run(folder), "dag")
    assert row.diversity_at[1.0].seeds == 0 and row.hypervolume.seeds == 0
    assert row.reward_at[0.9].seeds == 2
