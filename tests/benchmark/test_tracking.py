"""``run --tracker``: trackers have what the files have, and a run does without one that fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmark.progress import CellProgress
from benchmark.tracking import NAMES, _Cell, evaluation_values, round_values, tracked
from results import store
from tests.benchmark.conftest import Command, one_line_error, run_command, write_suite
from tests.benchmark.trackers import READERS, Stored

CELL = "ddpo--colourfulness--s0"
CELLS = [CELL, "base--none--s0", "best-of-n--colourfulness--s0"]
INSTALLED = [name for name in NAMES if importlib.util.find_spec(name)]
each_tracker = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name not in INSTALLED,
                reason=f"{name} is not installed: pip install -e '.[{name}]'",
            ),
        )
        for name in NAMES
    ],
)


def set_up(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """Trackers that write here and send nothing."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(run / "trackio"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run of one method on one reward, followed by every tracker that is installed."""
    folder = tmp_path_factory.mktemp("tracking")
    suite = write_suite(folder, tiny_model)
    followed = [part for name in INSTALLED for part in ("--tracker", name)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_up(monkeypatch, folder / "run")
        done = run_command(
            folder, "run", "--suite", suite, "--rewards", "colourfulness", "--out", "run", *followed
        )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "stopped" not in done.stdout
    return folder / "run"


def written(run: Path, cell: str) -> Stored:
    """What the files of a cell have."""
    found, record = Stored(), store.read_cell(run, cell)
    for each in record.rounds:
        found.setdefault(each.images, {}).update(round_values(each))
    for evaluation in record.evaluations:
        found.setdefault(evaluation.images, {}).update(evaluation_values(evaluation))
    return found


def same(found: Stored, expected: Stored) -> None:
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-6, abs=1e-9)


def test_the_values_are_those_of_the_files(run: Path) -> None:
    record = store.read_cell(run, CELL)
    values = written(run, CELL)
    assert list(values) == [4, 8]
    first, last = record.rounds[0], record.evaluations[-1]
    assert values[4]["train/reward_mean"] == first.metrics["reward_mean"]
    assert values[4]["cost/images"] == 4
    assert values[4]["cost/seconds"] == sum(first.seconds.values())
    assert values[8]["test/colourfulness"] == pytest.approx(np.mean(last.rewards["colourfulness"]))
    assert values[8]["validation/reward"] == pytest.approx(np.mean(last.validation))
    assert values[8]["test/path_kl"] == pytest.approx(np.mean(last.path_kl))
    assert values[8]["diversity/efficientnet-lite0"] > 0 and values[8]["bad_images/black"] == 0


@each_tracker
def test_a_tracker_has_what_the_files_have(run: Path, name: str) -> None:
    for cell in CELLS:
        same(READERS[name](run, cell), written(run, cell))


@each_tracker
def test_a_cell_that_comes_late_is_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As when a run goes on: all its lines at once, though they lie in two files."""
    set_up(monkeypatch, tmp_path)
    (tmp_path / "cells").symlink_to(run / "cells")
    with tracked([name], tmp_path, lambda *_: None) as follow:
        for cell in CELLS:
            follow(cell, CellProgress(1.0, "done"))
    for cell in CELLS:
        same(READERS[name](tmp_path, cell), written(run, cell))


class Notebook:
    """A tracker that takes note of what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: Stored = {}
        self.ended = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)
        self.values.setdefault(step, {}).update(values)

    def finish(self) -> None:
        self.ended += 1


def copied(run: Path, folder: Path, rounds: int, evaluations: int) -> None:
    """A run folder in which the cell has written so many lines of each file, and a bit."""
    cell = store.cell_folder(folder, CELL)
    cell.mkdir(parents=True, exist_ok=True)
    for name, count in (("metrics.jsonl", rounds), ("evaluations.jsonl", evaluations)):
        lines = (store.cell_folder(run, CELL) / name).read_text().splitlines(keepends=True)
        rest = lines[count][:20] if count < len(lines) else ""
        (cell / name).write_text("".join(lines[:count]) + rest)


def test_steps_never_go_back(run: Path, tmp_path: Path) -> None:
    """Whatever part of either file is there when they are read."""
    notebook = Notebook()
    cell = _Cell(tmp_path, CELL, ["wandb"], {"wandb": notebook})
    for rounds, evaluations in ((0, 0), (1, 0), (1, 2), (2, 2)):
        copied(run, tmp_path, rounds, evaluations)
        cell.catch_up()
        assert notebook.steps == sorted(notebook.steps)
        assert not notebook.steps or notebook.steps[-1] == 4 * rounds
    same(notebook.values, written(run, CELL))
    cell.finish()
    cell.finish()
    cell.catch_up()
    assert notebook.ended == 1 and len(notebook.steps) == 4


def test_trackers_of_a_cell_end_with_it(run: Path) -> None:
    notebook = Notebook()
    cell = _Cell(run, CELL, ["wandb"], {"wandb": notebook})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("benchmark.tracking._Cell", lambda *_: cell)
        with tracked(["wandb"], run, lambda *_: None) as follow:
            follow(CELL, CellProgress(0.5, "training"))
            assert notebook.ended == 0
            follow(CELL, CellProgress(1.0, "done"))
            assert notebook.ended == 1
    assert notebook.ended == 1


def test_a_tracker_that_fails_is_let_go_of(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def log(self, values: object, step: int) -> None:
            raise RuntimeError("no route\nto host")

    cell = _Cell(run, CELL, ["wandb"], {"wandb": Broken()})
    cell.catch_up()
    cell.finish()
    assert capsys.readouterr().out == f"tracker wandb of {CELL} stopped: no route to host\n"


def test_trackers_that_are_not_there(benchmark_command: Command) -> None:
    done = benchmark_command("run", "--tracker", "tensorbord", "--dry-run")
    assert "did you mean 'tensorboard'" in one_line_error(done, 4)


def test_a_tracker_that_is_not_installed(
    benchmark_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "wandb" else find(name)
    )
    done = benchmark_command("run", "--tracker", "wandb", "--dry-run")
    assert "pip install -e '.[wandb]'" in one_line_error(done, 4)
