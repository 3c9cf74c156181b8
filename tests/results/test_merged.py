"""Two runs together: methods told apart, protocols kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from results import analysis, records, scores, store
from results.merged import merge
from results.store import ResultsError, Run, read_run
from tests.results.synthetic import Synthetic


def other_protocol(folder: Path) -> Path:
    """Turns a run into one of another protocol."""
    for path in [folder / "run.json", *folder.glob("cells/*/config.json")]:
        path.write_text(path.read_text().replace('"5f1c0a7e"', '"ffff0000"'))
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(Synthetic(tmp_path_factory.mktemp("first")).write())


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("second")
    return read_run(
        Synthetic(folder, seeds=(0, 1, 2), methods=("dag",), rewards=("style",)).write()
    )


def test_a_method_of_both_has_two_names_and_others_keep_theirs(first: Run, second: Run) -> None:
    ((label, run),) = merge(first, second).parts
    assert label == ""
    assert scores.methods(run) == ["base", "best-of-n", "dag [A]", "ddpo", "alignprop", "dag [B]"]
    assert set(run.record.methods) == set(scores.methods(run))
    assert run.record.cells == list(run.cells)
    assert run.record.seeds == [0, 1, 2]
    for cell_id, cell in run.cells.items():
        assert cell.cell_id == cell_id
        source = first if cell_id.startswith("A/") else second
        assert cell.folder == source.cells[cell_id[2:]].folder


def test_controls_of_both_are_one(first: Run, second: Run) -> None:
    merged = merge(first, second)
    ((_, run),) = merged.parts
    assert [cell.cell_id for cell in run.cells.values() if cell.method == "base"] == [
        *("A/base--none--s0", "A/base--none--s1", "B/base--none--s2")
    ]
    best = [c.cell_id for c in run.cells.values() if c.method == "best-of-n"]
    assert "A/best-of-n--style--s0" in best and "B/best-of-n--style--s2" in best
    assert "B/best-of-n--style--s0" not in best
    assert any("equal to the last bit" in note or "at most" in note for note in merged.notes)


def test_the_numbers_are_those_of_the_folders(first: Run, second: Run) -> None:
    ((_, run),) = merge(first, second).parts
    rows = {row.method: row for row in analysis.task_table(run, "style")}
    alone = {row.method: row for row in analysis.task_table(first, "style")}
    other = {row.method: row for row in analysis.task_table(second, "style")}
    assert rows["dag [A]"].reward == alone["dag"].reward
    assert rows["dag [B]"].reward == other["dag"].reward
    # A reward of one folder alone has the methods of that folder alone.
    assert "dag [B]" not in {row.method for row in analysis.task_table(run, "colourfulness")}


def test_best_of_n_of_another_budget_is_a_control_of_its_own(first: Run, tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, methods=("ddpo",)).write()
    for path in folder.glob("cells/best-of-n--*/config.json"):
        config = store.read_json(path, records.CellConfig)
        store.write_json(path, config.model_copy(update={"budget_images": 512}))
    merged = merge(first, read_run(folder))
    ((_, run),) = merged.parts
    assert scores.methods(run)[:3] == ["base", "best-of-n", "best-of-n [B]"]
    assert scores.is_control("best-of-n [B]")
    assert any("other settings in B" in note for note in merged.notes)


def test_a_cell_that_failed_gives_way_to_its_twin(second: Run, tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    status = records.StatusRecord(state="failed", reason="killed")
    store.write_json(store.cell_folder(folder, "base--none--s0") / "status.json", status)
    ((_, run),) = merge(read_run(folder), second).parts
    assert "B/base--none--s0" in run.cells and "A/base--none--s0" not in run.cells


def test_runs_of_different_protocols_stay_apart(first: Run, tmp_path: Path) -> None:
    other = read_run(other_protocol(Synthetic(tmp_path).write()))
    merged = merge(first, other)
    assert [label for label, _ in merged.parts] == ["A", "B"]
    for (label, run), source in zip(merged.parts, (first, other), strict=True):
        assert list(run.cells) == [f"{label}/{cell_id}" for cell_id in source.cells]
        assert {c.config.protocol for c in run.cells.values() if c.config} == {
            source.record.protocol
        }
        assert scores.methods(run) == scores.methods(source)
    assert "different protocols" in merged.notes[0]


def test_two_times_one_folder_is_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="same folder"):
        merge(first, read_run(first.folder / "cells" / ".."))


def test_a_folder_without_cells_is_refused(first: Run, tmp_path: Path) -> None:
    store.write_json(tmp_path / "run.json", Synthetic(tmp_path).run_record([]))
    with pytest.raises(ResultsError, match="no cells"):
        merge(first, read_run(tmp_path))
