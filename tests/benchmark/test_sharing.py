"""Two runs on one folder, one after another or at once, and cells that are over a limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import claims, run_folder
from results import store
from results.records import StatusRecord
from tests.benchmark.conftest import Command, environment, one_line_error, write_suite
from tests.benchmark.test_run import COLOUR, wait_for

BASE, BEST = "base--none--s0", "best-of-n--colourfulness--s0"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A run of three cells of the tiny suite, one at a time, in the folder ``run``."""
    command = ["-m", "benchmark", "run", "--suite", "tiny.yaml", "--rewards", "colourfulness"]
    return subprocess.Popen(
        [sys.executable, *command, "--out", "run", "--workers", "1", *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_share_the_cells_and_outlive_each_other(tmp_path: Path, tiny_model: Path) -> None:
    write_suite(tmp_path, tiny_model)
    run = tmp_path / "run"
    first, second = start(tmp_path), start(tmp_path)
    wait_for(lambda: len(claims.living(run)) == 2)
    shared = claims.living(run)
    assert len(set(shared.values())) == 2
    mine = next(cell_id for cell_id, who in shared.items() if f"process {first.pid} " in who)
    first.send_signal(signal.SIGKILL)
    before, _ = first.communicate(timeout=60)
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    # What the first had ended is not done again; what it was at is.
    for cell_id in (BASE, BEST, COLOUR):
        ended = [f"{cell_id}  done" in text for text in (before, output.replace("by another", "x"))]
        assert ended == [False, True] if cell_id == mine else any(ended)
    found = store.read_run(run)
    assert [cell.status.state for cell in found.cells.values()] == ["done"] * 3
    assert claims.living(run) == {} and not list((run / "claims").glob("*.json"))


def test_both_end_with_all_done_and_no_cell_twice(tmp_path: Path, tiny_model: Path) -> None:
    write_suite(tmp_path, tiny_model)
    runs = [start(tmp_path), start(tmp_path)]
    outputs = [run.communicate(timeout=240) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    for cell_id in (BASE, BEST, COLOUR):
        lines = [line for output, _ in outputs for line in output.splitlines() if cell_id in line]
        done = [line for line in lines if "  done  in " in line]
        assert len(done) == 1, lines


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder whose ``run`` had no memory, and then no time."""
    folder = tmp_path_factory.mktemp("limited")
    write_suite(folder, tiny_model)
    _, errors = start(folder, "--memory-limit", "0.1").communicate(timeout=240)
    assert f"3 of 3 cells failed: {BASE}, {BEST}, {COLOUR}" in errors
    for cell in store.read_run(folder / "run").cells.values():
        assert cell.status.state == "failed"
        assert cell.status.reason.startswith("over its memory limit of 0.1 GiB: ")
    retry = start(folder, "--time-limit", "0.1", "--retry", "failed")
    output, errors = retry.communicate(timeout=240)
    assert retry.returncode == 2, errors
    assert "run run: 3 of 3 cells to run (3 failed)\n" in output
    return folder


def test_a_cell_over_its_time_limit_is_timed_out(limited: Path) -> None:
    for cell in store.read_run(limited / "run").cells.values():
        status = cell.status
        assert (status.state, status.reason) == ("timed_out", "over its time limit of 0.1 s")
        assert 0.1 < status.seconds < 10
        assert status.key and status.source


def again(folder: Path, command: Command, *options: str) -> subprocess.CompletedProcess[str]:
    """The same command in this process."""
    os.chdir(folder)
    arguments = ("run", "--suite", "tiny.yaml", "--rewards", "colourfulness", "--out", "run")
    return command(*arguments, *options)


def test_a_second_run_keeps_what_ended_without_results(
    limited: Path, benchmark_command: Command
) -> None:
    done = again(limited, benchmark_command)
    assert "3 of 3 cells failed: " in one_line_error(done, 2)
    kept = "3 timed out (kept; --retry timed-out runs them again)"
    assert f"run run: 0 of 3 cells to run; {kept}\n" in done.stdout


def test_what_a_run_would_do_again_is_told_by_cell(
    limited: Path, benchmark_command: Command
) -> None:
    path = store.cell_folder(limited / "run", BASE) / "status.json"
    status = store.read_json(path, StatusRecord)
    store.write_json(path, status.model_copy(update={"key": "another", "source": "another"}))
    shown = again(limited, benchmark_command, "--dry-run", "--retry", "timed-out")
    assert "stale 0" in benchmark_command("status", "run").stdout
    store.write_json(path, status)
    assert f"{BASE}  run (stale)" in shown.stdout
    assert f"{COLOUR}  run (timed out)" in shown.stdout
    assert "3 of 3 cells to run (2 timed out, 1 stale)" in shown.stdout
    assert "stale" not in benchmark_command("status", "run").stdout


@pytest.mark.parametrize("state", ["done", "al", ""])
def test_only_what_failed_can_be_retried(benchmark_command: Command, state: str) -> None:
    assert "--retry" in one_line_error(benchmark_command("run", "--retry", state), 4)


def test_a_stale_cell_is_set_aside(tmp_path: Path) -> None:
    folder = store.cell_folder(tmp_path, COLOUR)
    for number in (1, 2):
        store.write_json(folder / "status.json", StatusRecord(state="done", key="old"))
        run_folder.set_aside_if_stale(tmp_path, COLOUR, "old")
        assert folder.exists()
        run_folder.set_aside_if_stale(tmp_path, COLOUR, "new")
        assert not folder.exists()
        aside = run_folder.superseded(tmp_path) / f"{COLOUR}--{number}" / "status.json"
        assert json.loads(aside.read_text())["key"] == "old"
