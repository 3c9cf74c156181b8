"""States of the cells of a folder, as ``status`` shows them and ``prune`` clears them away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import claims, run_folder, standing
from benchmark.claims import Claims
from benchmark.fingerprint import fingerprint
from benchmark.run_status import ranges
from results import store
from results.records import RunRecord, StatusRecord
from results.states import State
from tests.benchmark.conftest import Command, environment, one_line_error
from tests.results.synthetic import Synthetic

ROOTS = {name: ["benchmark.cell", f"methods.{name}"] for name in ("dag", "ddpo", "alignprop")}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Cells of every state; of dag, seed 0 is stale."""
    folder = Synthetic(tmp_path / "run", seeds=range(4)).write()
    record = store.read_json(folder / "run.json", RunRecord)
    store.write_json(folder / "run.json", record.model_copy(update={"sources": ROOTS}))
    for cell_id in record.cells:
        method = cell_id.partition("--")[0]
        if method in ROOTS:
            source = "another" if cell_id == "dag--style--s0" else fingerprint(ROOTS[method])
            update(folder, cell_id, source=source, key="key")
    update(folder, "ddpo--style--s0", state="diverged", reason="the gradient is not finite")
    update(folder, "ddpo--style--s2", state="timed_out", reason="over its time limit of 3 s")
    update(folder, "ddpo--style--s3", state="running")
    (store.cell_folder(folder, "dag--style--s1") / "status.json").unlink()
    (store.cell_folder(folder, "dag--style--s2")).rename(tmp_path / "gone")
    return folder


def update(folder: Path, cell_id: str, **changes: str) -> None:
    path = store.cell_folder(folder, cell_id) / "status.json"
    status = store.read_json(path, StatusRecord)
    store.write_json(path, status.model_copy(update=changes))


def states(folder: Path) -> dict[str, str]:
    record = store.read_json(folder / "run.json", RunRecord)
    cells = standing.read(folder, record, standing.by_source(record))
    return {cell_id: cell.state for cell_id, cell in cells.items()}


def test_the_state_of_every_cell(run: Path) -> None:
    found = states(run)
    assert [found[f"ddpo--style--s{seed}"] for seed in range(4)] == [
        "diverged",
        "failed",
        "timed_out",
        "interrupted",
    ]
    assert [found[f"dag--style--s{seed}"] for seed in range(4)] == [
        "stale",
        "interrupted",
        "pending",
        "done",
    ]
    assert found["alignprop--colourfulness--s0"] == "not_applicable"
    assert found["base--none--s0"] == "done"


def test_a_cell_is_running_while_somebody_holds_its_claim(run: Path) -> None:
    mine = Claims(run)
    mine.take("ddpo--style--s3")
    assert states(run)["ddpo--style--s3"] == "running"
    mine.release("ddpo--style--s3")
    assert states(run)["ddpo--style--s3"] == "interrupted"


def test_a_damaged_status_proves_nothing(run: Path) -> None:
    (store.cell_folder(run, "dag--style--s3") / "status.json").write_text("{")
    assert states(run)["dag--style--s3"] == "interrupted"


def test_interrupted_cells_of_version_2_are_known(run: Path) -> None:
    update(run, "ddpo--style--s1", reason="interrupted")
    assert states(run)["ddpo--style--s1"] == "interrupted"


@pytest.mark.parametrize(
    ("retried", "expected"),
    [
        (
            (),
            "4 of 36 cells to run (2 interrupted, 1 pending, 1 stale); 25 done, "
            "1 failed (kept; --retry failed runs it again), "
            "1 diverged (kept; --retry diverged runs it again), "
            "1 timed out (kept; --retry timed-out runs it again), 4 not applicable",
        ),
        (
            ("failed", "diverged", "timed_out"),
            "7 of 36 cells to run (1 failed, 1 diverged, 1 timed out, 2 interrupted, 1 pending, "
            "1 stale); 25 done, 4 not applicable",
        ),
    ],
)
def test_what_a_run_does_is_said_in_a_line(
    run: Path, retried: tuple[State, ...], expected: str
) -> None:
    record = store.read_json(run / "run.json", RunRecord)
    cells = standing.read(run, record, standing.by_source(record))
    assert standing.sentence(cells, retried) == expected
    assert len(standing.to_run(cells, retried)) == int(expected[0])


def test_status_from_outside(run: Path, tmp_path: Path) -> None:
    Claims(run).take("ddpo--style--s3")
    code = (
        "import sys\nfrom benchmark.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert 'torch' not in sys.modules\n    raise\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "status", str(run)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for expected in (
        "stale 0",
        "diverged 0",
        "timed out 2",
        "done 0-3",
        "diverged ddpo--style--s0: the gradient is not finite",
        "failed ddpo--style--s1: RuntimeError: out of memory",
        f"running ddpo--style--s3: process {os.getpid()} on ",
        "not applicable: needs a reward gradient; colourfulness has none",
        "36 cells: 25 done, 1 failed, 1 diverged, 1 timed out, 1 interrupted, 1 running, "
        "1 pending, 1 stale, 4 not applicable",
    ):
        assert expected in done.stdout


def test_status_of_the_latest_run(benchmark_command: Command, tmp_path: Path) -> None:
    assert "no run in runs" in one_line_error(benchmark_command("status"), 3)
    for number, name in enumerate(("b", "a")):
        folder = Synthetic(tmp_path / "runs" / name, seeds=(0,), rewards=("style",)).write()
        os.utime(folder / "run.json", (number, number))
    done = benchmark_command("status")
    assert done.stdout.startswith("run runs/a\n") and "5 cells: 5 done" in done.stdout


def test_hostile_text_stays_text(run: Path, benchmark_command: Command) -> None:
    update(run, "ddpo--style--s1", reason="[red]no[/red]\n\x1b[2J\u202ex")
    done = benchmark_command("status", run)
    assert "failed ddpo--style--s1: [red]no[/red]  [2J x\n" in done.stdout
    record = store.read_json(run / "run.json", RunRecord)
    outside = record.model_copy(update={"cells": ["../../x"]})
    store.write_json(run / "run.json", outside)
    for command in ("status", "prune", "index"):
        assert "is not <method>--" in one_line_error(benchmark_command(command, run), 3)


def test_seeds_are_told_in_ranges() -> None:
    assert ranges([3, 1, 2, 7, 0, 9]) == "0-3,7,9"


def test_prune_shows_and_then_deletes(run: Path, benchmark_command: Command) -> None:
    (run / "cells" / "stray--style--s0").mkdir()
    leftover = store.cell_folder(run, "dag--style--s3") / ".status.json.x.part"
    leftover.write_text("half")
    aside = run_folder.superseded(run) / "dag--style--s3--1"
    aside.mkdir(parents=True)
    (aside / "status.json").write_text("{}")
    dead = claims.path(run, "ddpo--style--s3")
    store.write_json(dead, Claims(run)._own(os.getpid()).model_copy(update={"processes": {1: 0.0}}))
    stale = store.cell_folder(run, "dag--style--s0")
    going = [run / "cells" / "stray--style--s0", leftover, aside, dead, stale]
    before = sorted(run.rglob("*"))
    shown = benchmark_command("prune", run)
    assert shown.returncode == 0 and sorted(run.rglob("*")) == before
    assert {line.split("  ")[0] for line in shown.stdout.splitlines()[:-1]} == set(map(str, going))
    assert "--yes deletes them" in shown.stdout.splitlines()[-1]
    done = benchmark_command("prune", run, "--yes")
    assert "deleted 5 in" in done.stdout
    assert not any(path.exists() for path in going)
    gone = {path for path in before if any(path.is_relative_to(each) for each in going)}
    assert set(run.rglob("*")) == set(before) - gone
    assert "nothing to prune" in benchmark_command("prune", run, "--yes").stdout


def test_prune_keeps_what_somebody_works_on(run: Path, benchmark_command: Command) -> None:
    mine = Claims(run)
    mine.take("dag--style--s0")
    (store.cell_folder(run, "dag--style--s0") / ".x.part").write_text("being written")
    assert "nothing to prune" in benchmark_command("prune", run, "--yes").stdout
    assert store.cell_folder(run, "dag--style--s0").exists()
