"""Runs that are killed and started again end as the uninterrupted run, and do little twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import methods
from benchmark import environment, resolution, suite
from benchmark import run as runs
from benchmark.cell import run_cell
from benchmark.jobs import CellJob
from benchmark.stopping import Stop
from results import store
from tests.benchmark.conftest import Command
from tests.benchmark.killing import (
    KilledRuns,
    Moment,
    comparable,
    lines,
    pid_of,
    start_of,
    wait_for,
    write_long_suite,
)

DAG = "dag-kl--colourfulness--s0"
TRACKED = {"advantage": "per_prompt_tracker", "tracker_buffer_size": 3, "tracker_min_count": 2}


def in_background(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_a_killed_and_interrupted_run_ends_as_the_uninterrupted(
    tmp_path: Path, tiny_model: Path, benchmark_command: Command
) -> None:
    """Through the command line: SIGKILL to a cell, SIGTERM to the run, a damaged checkpoint."""
    path = write_long_suite(tmp_path, tiny_model, {"dag-kl": {}}, rounds=6)
    command = ("run", "--suite", path, "--set", "evaluation.times=2")
    whole = benchmark_command(*command, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    straight = comparable(tmp_path / "whole" / "cells" / DAG)

    cell = tmp_path / "run" / "cells" / DAG

    def after(rounds: int, act: Callable[[], None]) -> threading.Thread:
        def watch() -> None:
            wait_for(lambda: lines(cell / "metrics.jsonl") >= rounds)
            act()

        return in_background(watch)

    after(2, lambda: os.kill(pid_of(cell), signal.SIGKILL))
    killed = benchmark_command(*command, "--out", "run")
    assert killed.returncode == 2, killed.stderr
    assert "SIGKILL" in killed.stderr + killed.stdout
    rounds = lines(cell / "metrics.jsonl")

    started = {p: p.stat().st_mtime_ns for p in cell.parent.glob("b*/status.json")}
    after(rounds + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = benchmark_command(*command, "--out", "run", "--retry", "failed")
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command with --out run finishes the rest" in stopped.stderr
    assert rounds - 1 <= int(start_of(cell).partition(" r")[2].partition("-")[0]) <= rounds
    before, newest = sorted((cell / "checkpoints").glob("r*"))
    # The round was finished and saved: nothing is lost.
    assert newest.name.startswith(f"r{lines(cell / 'metrics.jsonl')}-")

    newest.write_bytes(newest.read_bytes()[:-1])
    finished = benchmark_command(*command, "--out", "run")
    assert finished.returncode == 0, finished.stderr
    assert comparable(cell) == straight
    status = store.read_cell(tmp_path / "run", DAG).status
    assert before.name.startswith(f"r{status.resumed_after[-1]}-")
    (note,) = status.notes
    assert note.startswith("checkpoint r") and "its SHA-256 is not that of its name" in note
    assert note in (cell / "log.txt").read_text(encoding="utf-8")
    assert f"note {DAG}: {note}" in benchmark_command("status", "run").stdout
    assert not (cell / "checkpoints").exists()
    assert {p: p.stat().st_mtime_ns for p in cell.parent.glob("b*/status.json")} == started


def job_of(folder: Path, path: Path, method: str) -> CellJob:
    """The only trained cell of a suite."""
    read, origins = suite.read(str(path))
    resolved = resolution.resolve(suite.check(read, origins), origins)
    planned = runs.plan(resolved, folder, "a test")
    (cell,) = [cell for cell in planned.cells if cell.method == method]
    return CellJob(
        config=runs.cell_config(planned, cell),
        model=resolved.suite.model,
        evaluation=resolved.suite.evaluation,
        environment=environment.describe("a test", 1),
        folder=store.cell_folder(folder, cell.id),
    )


def in_attempts(job: CellJob) -> list[int]:
    """Run a cell, asked to stop at every other event, until it is done; the rounds it went on
    from."""
    for attempt in range(1, 100):
        stop, events = Stop(), 0

        def notify(progress: Any, stop: Stop = stop, share: int = attempt) -> None:
            nonlocal events
            events += progress.activity in ("training", "evaluating")
            stop.requested = stop.requested or events == 1 + share % 2

        status = run_cell(job, notify, stop)
        if status.state == "done":
            return status.resumed_after
        assert status.state == "interrupted", status.traceback
    raise AssertionError("it does not get on")


@pytest.mark.slow
@pytest.mark.parametrize("method", list(methods.registry()))
def test_every_method_goes_on_bit_for_bit(method: str, tmp_path: Path, tiny_model: Path) -> None:
    """As whole cells that are stopped again and again, in training and before evaluations."""
    if reason := methods.get(method).unavailable():
        pytest.skip(f"{method} {reason}")
    trained = method if methods.get(method).trains else "ddpo"
    options = TRACKED if trained in ("ddpo", "ddpo-sf") else {}
    path = write_long_suite(tmp_path, tiny_model, {trained: options}, rounds=4)
    straight, stopped = (job_of(tmp_path / name, path, method) for name in ("straight", "stopped"))
    assert run_cell(straight, lambda progress: None).state == "done"
    resumed_after = in_attempts(stopped)
    assert resumed_after or not methods.get(method).trains
    assert comparable(stopped.folder) == comparable(straight.folder)


PLANS = ["time"] * 4 + ["checkpoint"] * 4 + ["report"] * 2
"""What is waited for before each of ten kills."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, float]:
    """A folder with a suite and its uninterrupted run in ``whole``, and the seconds that took."""
    folder = tmp_path_factory.mktemp("killed")
    trained: dict[str, Any] = {"ddpo": TRACKED, "dag-kl": {}, "alignprop": {}}
    path = write_long_suite(folder, tiny_model, trained, rounds=8)
    run = KilledRuns(folder, ["run", "--suite", str(path), "--out", "whole"], folder / "whole")
    started = time.monotonic()
    process = run.start()
    process.join()
    assert process.exitcode == 0, (folder / "output.txt").read_text(encoding="utf-8")
    return folder, time.monotonic() - started


class Trial:
    """One run folder, killed until it is done."""

    def __init__(self, folder: Path, name: str, span: float, rng: random.Random) -> None:
        out = folder / name
        arguments = ["run", "--suite", str(folder / "tiny.yaml"), "--out", name]
        self.runs, self.span, self.rng = KilledRuns(folder, arguments, out), span, rng
        self.cells = out / "cells"
        self.killed: dict[str, Moment] = {}
        """Cells that have not been seen to start again, and where they were."""
        self.done: dict[Path, int] = {}
        """Status files of cells that are done, and when they were written."""

    def attempt(self, plan: str) -> list[Moment] | None:
        """Start the run, and kill it at a moment of the plan; None if it ended before."""
        process = self.runs.start()
        self._wait(plan, lambda: not process.is_alive())
        if not process.is_alive():
            assert process.exitcode == 0
            self._look()
            return None
        moments = self.runs.kill(process)
        self._look()
        self.killed |= moments
        return list(moments.values()) or [Moment("report" if self._all_done() else "between cells")]

    def _wait(self, plan: str, ended: Callable[[], bool]) -> None:
        if plan == "checkpoint":
            writes = self.rng.randint(1, 8)
            for _ in range(writes - 1):
                wait_for(lambda: ended() or self._writing(), every=0)
                wait_for(lambda: ended() or not self._writing(), every=0)
            wait_for(lambda: ended() or self._writing(), every=0)
            return
        if plan == "end":
            wait_for(ended, seconds=600)
        if plan == "report":
            wait_for(lambda: ended() or self._all_done(), every=0.05)
        elapsed = time.monotonic() + self.rng.uniform(0, self.span / (2 if plan == "time" else 8))
        wait_for(lambda: ended() or time.monotonic() > elapsed)

    def _writing(self) -> bool:
        return any(self.cells.glob("*/checkpoints/.*.part"))

    def _all_done(self) -> bool:
        states = self.runs.states()
        return bool(states) and set(states.values()) == {"done"}

    def _look(self) -> None:
        """What was killed has gone on from its newest checkpoint, and what is done stays."""
        for name, moment in list(self.killed.items()):
            cell = self.cells / name
            if not (cell / "log.txt").exists() or pid_of(cell) == moment.process:
                continue
            if start_of(cell):
                assert start_of(cell) == moment.start
                del self.killed[name]
        for path, written in self.done.items():
            assert path.stat().st_mtime_ns == written
        for name, state in self.runs.states().items():
            path = self.cells / name / "status.json"
            if state == "done":
                self.done[path] = path.stat().st_mtime_ns


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(5))
def test_ten_kills_change_nothing(piece: int, killed: tuple[Path, float]) -> None:
    """SIGKILL to the run and its cell, at random moments; fifty in the five pieces together."""
    folder, span = killed
    rng = random.Random(piece)
    plans = [plan for plan in PLANS if plan != "report"]
    rng.shuffle(plans)
    plans += [plan for plan in PLANS if plan == "report"]
    trials = 0
    trial = Trial(folder, f"{piece}-{trials}", span, rng)
    while True:
        moments = trial.attempt(plans[0] if plans else "end")
        if moments is None:
            same_as_whole(folder, trial)
            if not plans:
                break
            trials += 1
            trial = Trial(folder, f"{piece}-{trials}", span, rng)
            continue
        plans = plans[1:]
        for moment in moments:
            assert moment.lost[0] <= 1 and moment.lost[1] <= 1, moment
            print("KILL", json.dumps([moment.what, moment.start, *moment.lost]))


def same_as_whole(folder: Path, trial: Trial) -> None:
    """Every cell of the trial is that of the uninterrupted run, and the report is there."""
    assert not trial.killed
    names = [path.name for path in (folder / "whole" / "cells").iterdir()]
    assert len(names) == 5
    for name in names:
        assert comparable(trial.cells / name) == comparable(folder / "whole" / "cells" / name)
        assert not (trial.cells / name / "checkpoints").exists()
    assert "<html" in (trial.runs.run / "report.html").read_text(encoding="utf-8")
    shutil.rmtree(trial.runs.run)
