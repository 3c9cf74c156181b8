"""Detectors of reward hacking on runs whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from results import hacking, records, store
from results.hacking import HackingRow
from results.store import Run
from tests.results.synthetic import Synthetic


def rows(run: Run) -> dict[tuple[str, str], HackingRow]:
    return {(row.method, row.task): row for row in hacking.hacking_rows(run)}


def test_every_trained_pair_that_is_done_has_a_row(run: Run) -> None:
    assert set(rows(run)) == {
        *((method, "style") for method in ("dag", "ddpo", "alignprop")),
        *((method, "colourfulness") for method in ("dag", "ddpo")),
    }


def test_a_reward_that_rises_while_fidelity_and_diversity_fall(run: Run) -> None:
    row = rows(run)["dag", "style"]
    assert row.gain.sign == 1
    # colourfulness stands for a reward that needs the prompt, and falls by 0.3 of the gain.
    for name in (
        "prompt fidelity: colourfulness",
        "diversity within a prompt, scorer",
        "saturation",
    ):
        assert name in row.suspected
    assert row.signs["saturation"].change.mean == pytest.approx(0.1)
    for name in ("contrast", "border variation", "bad images"):
        assert row.signs[name].change.seeds == 3 and not row.signs[name].fires
    assert row.path_kl.mean == pytest.approx(3.1)


def test_a_score_that_small_changes_undo(run: Run) -> None:
    signs = rows(run)["dag", "style"].signs
    # What noise takes from the untrained model, 0.01, is no sign: only what it takes on top.
    assert signs["robustness gap: noise"].change.mean == pytest.approx(0.125)
    assert signs["robustness gap: noise"].fires and not signs["robustness gap: flip"].fires
    assert "robustness gap: noise" in rows(run)["dag", "style"].suspected
    other = rows(run)["alignprop", "style"].signs["robustness gap: noise"]
    assert other.change.seeds == 3 and not other.fires


def test_a_reward_that_was_not_scored_after_changes_has_no_gap(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    for seed in range(3):
        path = store.cell_folder(folder, f"dag--style--s{seed}") / "evaluations.jsonl"
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        evaluations[-1].augmented.clear()
        store.write_jsonl(path, evaluations)
    sign = rows(store.read_run(folder))["dag", "style"].signs["robustness gap: noise"]
    assert sign.change.seeds == 0 and not sign.fires


def test_nothing_is_suspected_where_the_reward_does_not_rise(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    for seed in range(3):
        base = store.read_cell(folder, f"base--none--s{seed}").evaluations[-1]
        path = store.cell_folder(folder, f"dag--style--s{seed}") / "evaluations.jsonl"
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        evaluations[-1].rewards["style"] = base.rewards["style"]
        store.write_jsonl(path, evaluations)
    row = rows(store.read_run(folder))["dag", "style"]
    assert row.signs["saturation"].fires and row.suspected == []


def test_one_seed_fires_nothing(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path, seeds=(0,)).write())
    assert not [sign for row in hacking.hacking_rows(run) for s in [row] if (sign := s.suspected)]


def test_the_reward_trained_on_does_not_watch_itself(run: Run) -> None:
    sign = rows(run)["dag", "colourfulness"].signs["prompt fidelity: colourfulness"]
    assert sign.change.seeds == 0 and not sign.fires


def test_what_was_not_measured_is_no_sign(run: Run) -> None:
    sign = rows(run)["dag", "style"].signs["near-duplicates, scorer"]
    assert sign.change.seeds == 0  # refused: too few pairs


def test_recall_is_compared_with_that_of_the_same_images(run: Run) -> None:
    sign = rows(run)["alignprop", "style"].signs["recall of base, scorer"]
    assert sign.change.seeds == 3 and sign.change.mean <= 0


def test_bad_images_of_all_evaluations_are_counted(run: Run) -> None:
    counted = hacking.bad_images(run)
    assert len(counted) == sum(len(cell.evaluations) for cell in run.cells.values())
    assert {row.images for row in counted} == {16}
    bad = {row.cell_id for row in counted if any(row.counts.values())}
    assert "ddpo--style--s0" in bad and "dag--style--s0" not in bad
