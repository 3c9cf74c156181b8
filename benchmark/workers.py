"""Runs cells, each in a process of its own, some at a time.

A process that crashes or is killed takes nothing with it: its cell is marked failed and the others
go on. Processes come from a fork server that has imported the heavy libraries once, so a cell
starts in a fraction of the time that importing them takes; the server itself runs no tensor code,
so nothing that cannot be forked exists in it yet.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from benchmark import stopping
from benchmark.errors import Interrupted
from benchmark.jobs import CellJob
from benchmark.progress import CellProgress
from results import store
from results.records import StatusRecord

PRELOADED = ["diffusers", "peft", "transformers", "timm", "open_clip", "benchmark.cell"]
"""Modules the fork server imports before the first cell."""
GRACE_SECONDS = 60.0
"""How long processes may take to end after being asked to, before they are killed: a cell finishes
its round first, and goes on from its newest checkpoint if it is killed after all."""

OnProgress = Callable[[str, CellProgress], None]


@dataclass
class _Running:
    job: CellJob
    process: BaseProcess
    events: Connection
    open: bool = field(default=True)
    """Whether more events may come."""


def run_all(
    jobs: Sequence[CellJob], workers: int, threads: int, on_progress: OnProgress
) -> dict[str, StatusRecord]:
    """Run all cells, ``workers`` at a time with ``threads`` threads each; their final status.

    Raises ``Interrupted`` on SIGINT and SIGTERM, once the running processes have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    statuses: dict[str, StatusRecord] = {}
    with _sigterm_as_interrupt():
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(_start(context, waiting.pop(), threads))
                _wait(running, on_progress)
                for ended in [each for each in running if not each.process.is_alive()]:
                    _drain(ended, on_progress)
                    running.remove(ended)
                    status = _final_status(ended)
                    statuses[ended.job.config.cell_id] = status
                    on_progress(ended.job.config.cell_id, _final_progress(status))
        except KeyboardInterrupt:
            _stop(running)
            raise Interrupted(
                f"interrupted with {len(statuses)} of {len(jobs)} cells ended"
            ) from None
        except BaseException:
            _stop(running)
            raise
    return statuses


def _start(
    context: multiprocessing.context.ForkServerContext, job: CellJob, threads: int
) -> _Running:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_process, args=(job, sender, threads), daemon=True)
    process.start()
    sender.close()  # else the pipe would not end with the process
    return _Running(job, process, receiver)


def _run_in_process(job: CellJob, events: Connection, threads: int) -> None:
    """Body of a cell's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    stop = stopping.Stop()
    stop.listen()
    stopping.end_with_run()
    _redirect_output(job.folder / "log.txt")
    print(f"process {os.getpid()}, {threads} threads: {job.config.cell_id}", flush=True)
    import torch

    from benchmark.cell import run_cell

    torch.set_num_threads(threads)
    run_cell(job, events.send, stop)


def _redirect_output(path: Path) -> None:
    """Send stdout and stderr, those of libraries in C included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _wait(running: Sequence[_Running], on_progress: OnProgress) -> None:
    """Wait for an event or the end of a process, and pass on all events that are there."""
    by_handle = {each.events: each for each in running if each.open}
    ready = wait([*by_handle, *(each.process.sentinel for each in running)])
    for handle in ready:
        if isinstance(handle, Connection):
            _receive(by_handle[handle], on_progress)


def _receive(cell: _Running, on_progress: OnProgress) -> None:
    try:
        on_progress(cell.job.config.cell_id, cell.events.recv())
    except (EOFError, OSError):
        cell.open = False


def _drain(cell: _Running, on_progress: OnProgress) -> None:
    """Pass on what an ended process had still sent."""
    while cell.open and cell.events.poll():
        _receive(cell, on_progress)
    cell.events.close()


def _final_status(cell: _Running) -> StatusRecord:
    """The status the process left; if it was cut short, one that says so takes its place."""
    if status := _left(cell):
        return status
    status = StatusRecord(state="failed", reason=_ending(cell.process.exitcode))
    store.write_json(cell.job.folder / "status.json", status)
    return status


def _left(cell: _Running) -> StatusRecord | None:
    """The final status that the process left, once it has ended; None if it was cut short."""
    cell.process.join()
    path = cell.job.folder / "status.json"
    status = store.read_json(path, StatusRecord) if path.exists() else None
    return status if status and status.state in ("done", "failed") else None


def _ending(exit_code: int | None) -> str:
    log = "see log.txt"
    if exit_code is None or exit_code >= 0:
        return f"the process ended with exit code {exit_code} before the cell was done; {log}"
    name = signal.Signals(-exit_code).name
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{memory}; {log}"


def _final_progress(status: StatusRecord) -> CellProgress:
    return CellProgress(1.0, status.state, status.reason or f"in {status.seconds:.0f} s")


def _stop(running: Sequence[_Running]) -> None:
    """End all processes and mark the cells that are not done; at once if interrupted again."""
    for each in running:
        each.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        for each in running:
            each.process.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        pass
    for each in running:
        if each.process.is_alive():
            each.process.kill()
        if _left(each) is None:
            status = StatusRecord(state="failed", reason="interrupted")
            store.write_json(each.job.folder / "status.json", status)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that a run ends in good order either way."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
