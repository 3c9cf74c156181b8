"""Runs that are killed: started in a process, stopped at a moment, looked at, and killed.

The process of a run is forked from this one and shares its fork server, so that a restart takes a
second instead of importing everything anew. Run, cells and signals are real.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from benchmark import claims, cli, workers
from benchmark.evaluation import evaluation_rounds
from benchmark.training_state import NAME, Position
from results import store
from tests.benchmark.conftest import write_suite

BY_THE_CLOCK = {
    "seconds",
    "training_seconds",
    "sampling_images_per_second",
    "joules",
    "peak_memory_bytes",
}
"""Of records: what is measured by a clock, or of the process."""
ROUNDS, EVALUATIONS = 8, 3


def write_long_suite(folder: Path, model: Path, methods: dict[str, Any], rounds: int) -> Path:
    """The tiny suite with more rounds of four images, three evaluations, one reward, and a
    checkpoint after each round."""
    path = write_suite(folder, model)
    suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    options = {"prompts_per_round": 2, "images_per_prompt": 2}
    suite |= {
        "rewards": ["colourfulness"],
        "methods": {name: options | extra for name, extra in methods.items()},
        "budget": {"images": 4 * rounds},
        "checkpoint_every": 1,
        "workers": 1,
    }
    suite["evaluation"]["times"] = EVALUATIONS
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return path


def comparable(cell: Path) -> dict[str, Any]:
    """All of a finished cell that does not depend on a clock, files as bytes."""
    read = store.read_cell(cell.parents[1], cell.name)
    records = {
        name: [record.model_dump(exclude=BY_THE_CLOCK) for record in getattr(read, name)]
        for name in ("rounds", "evaluations", "samplers")
    }
    files = {
        str(path.relative_to(cell)): content(path)
        for kind in ("samples", "features", "lora", "measures")
        for path in sorted((cell / kind).glob("*"))
    }
    return {**records, "counts": read.status.counts, "state": read.status.state, "files": files}


def content(path: Path) -> Any:
    """Bytes of a file; of safetensors those of each tensor, since their metadata has no order."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    return {name: array.tobytes() for name, array in load_file(path).items()}


def lines(path: Path) -> int:
    """Whole lines of a log."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@dataclass(frozen=True)
class Moment:
    """Where a cell was when it was killed."""

    what: str
    process: int = 0
    rounds: int = 0
    evaluations: int = 0
    checkpoint: Position | None = None
    """The newest that is whole."""

    @property
    def start(self) -> str:
        """What the next process of the cell has to tell."""
        return f"goes on from checkpoint {self.checkpoint}" if self.checkpoint else "starts anew"

    @property
    def lost(self) -> tuple[int, int]:
        """Rounds and evaluations that have to be made again."""
        saved = self.checkpoint or Position()
        return self.rounds - saved.round, self.evaluations - saved.evaluations


def moment(cell: Path) -> Moment:
    """What a cell whose process stands still is doing, by what lies in its folder."""
    rounds, evaluations = lines(cell / "metrics.jsonl"), lines(cell / "evaluations.jsonl")
    found = [NAME.fullmatch(path.name) for path in (cell / "checkpoints").glob("r*")]
    whole = [(int(m["round"]), int(m["evaluations"])) for m in found if m]
    checkpoint = Position(*max(whole)) if whole else None
    trains = not cell.name.startswith(("base", "best-of-n"))
    due = evaluation_rounds(ROUNDS, EVALUATIONS) if trains else [0]
    if any((cell / "checkpoints").glob(".*.part")):
        what = "writing a checkpoint"
    elif not start_of(cell):
        what = "loading"
    elif evaluations == len(due):
        what = "further sampler, saving"
    elif due[evaluations] == rounds:
        what = "evaluation"
    else:
        what = "training"
    return Moment(what, pid_of(cell), rounds, evaluations, checkpoint)


def start_of(cell: Path) -> str:
    """What the newest process of a cell told of where it starts; empty while it loads."""
    match = re.search(r"^(starts anew|goes on from checkpoint .*)$", newest_log(cell), re.M)
    return match[0] if match else ""


def newest_log(cell: Path) -> str:
    """What the newest process of a cell has written."""
    return (cell / "log.txt").read_text(encoding="utf-8").rpartition("process ")[2]


def pid_of(cell: Path) -> int:
    """The newest process of a cell."""
    match = re.match(r"\d+", newest_log(cell))
    assert match is not None
    return int(match[0])


class KilledRuns:
    """Starts one run after another in the same folder."""

    def __init__(self, work: Path, arguments: list[str], run: Path) -> None:
        self.work, self.arguments, self.run = work, arguments, run
        work.mkdir(exist_ok=True)
        forkserver.set_forkserver_preload(workers.PRELOADED)
        forkserver.ensure_running()

    def start(self) -> BaseProcess:
        """The command in a process of its own."""
        process = multiprocessing.get_context("fork").Process(target=self._command)
        process.start()
        return process

    def _command(self) -> None:
        # The server is no child of this process, which would take it for dead.
        server = vars(forkserver)["_forkserver"]
        server.ensure_running = forkserver.ensure_running = lambda: None
        os.chdir(self.work)
        output = os.open(self.work / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        cli.main(self.arguments)

    def states(self) -> dict[str, str]:
        """State of each cell by what is on disk."""
        try:
            return {name: c.status.state for name, c in store.read_run(self.run).cells.items()}
        except store.ResultsError:
            return {}

    def kill(self, process: BaseProcess) -> dict[str, Moment]:
        """Stop the run and its cells as they are, look, and kill them with SIGKILL."""
        cells = [path.parent for path in self.run.glob("cells/*/log.txt") if alive(path.parent)]
        pids = [pid_of(cell) for cell in cells]
        assert process.pid is not None
        for pid in [*pids, process.pid]:
            send(pid, signal.SIGSTOP)
        states = self.states()
        running = [cell for cell in cells if states.get(cell.name) == "running"]
        moments = {cell.name: moment(cell) for cell in running}
        for pid in [process.pid, *pids]:
            send(pid, signal.SIGKILL)
        process.join()
        wait_for(lambda: not any(map(alive, cells)))
        return moments


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(cell: Path) -> bool:
    """Whether the newest process of a cell is there and no mere remains."""
    try:
        return claims.started(pid_of(cell)) is not None
    except (AssertionError, FileNotFoundError):
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 300, every: float = 0.001) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(every)
