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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from benchmark import stopping
from benchmark.errors import Interrupted
from benchmark.jobs import CellJob
from benchmark.limits import Limits
from benchmark.progress import CellProgress
from results import store
from results.records import StatusRecord
from results.states import FAILURES

PRELOADED = ["diffusers", "peft", "transformers", "timm", "open_clip", "benchmark.cell"]
"""Modules the fork server imports before the first cell."""
GRACE_SECONDS = 45.0
"""How long cells of a run that is stopped may take to end, before they are killed: each finishes
its round and saves where it is. Less than claims stand without being touched."""
LIMIT_GRACE_SECONDS = 5.0
"""Likewise of a cell over its limit, which may hang."""

TICK_SECONDS = 1.0
"""Between two looks at what tells nothing by itself: limits, and cells that others work on."""

OnProgress = Callable[[str, CellProgress], None]


class Work(Protocol):
    """The cells to run; see ``benchmark.sharing``."""

    waiting: list[str]

    def take(self) -> CellJob | None: ...
    def started(self, cell_id: str, process: int) -> None: ...
    def ended(self, cell_id: str) -> None: ...
    def beat(self) -> list[str]: ...


@dataclass
class _Running:
    job: CellJob
    process: BaseProcess
    events: Connection
    open: bool = field(default=True)
    """Whether more events may come."""
    since: float = field(default_factory=time.monotonic)
    ended_as: StatusRecord | None = None
    """What is to be said of a cell that was ended here."""
    lost: bool = False
    """Whether another run has taken the cell over."""

    @property
    def cell_id(self) -> str:
        return self.job.config.cell_id

    def end(self, status: StatusRecord) -> None:
        """End the process for a reason of its own; killed if it does not end when asked to."""
        if self.ended_as is None:
            self.ended_as = status
            self.process.terminate()
        elif time.monotonic() - self.since > self.ended_as.seconds + LIMIT_GRACE_SECONDS:
            self.process.kill()


def run_all(
    work: Work, workers: int, threads: int, limits: Limits, on_progress: OnProgress
) -> dict[str, StatusRecord]:
    """Run all cells, ``workers`` at a time with ``threads`` threads each; the final status of those
    that ran here. Ends when others have ended theirs too.

    Raises ``Interrupted`` on SIGINT and SIGTERM, once the running processes have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    running: list[_Running] = []
    statuses: dict[str, StatusRecord] = {}
    total = len(work.waiting)
    with sigterm_as_interrupt():
        try:
            while work.waiting or running:
                while len(running) < workers and (job := work.take()):
                    running.append(_start(context, job, threads))
                    work.started(job.config.cell_id, running[-1].process.pid or 0)
                _wait(running, on_progress)
                _keep_limits(running, limits)
                _give_up(running, work.beat())
                for ended in [each for each in running if not each.process.is_alive()]:
                    _drain(ended, on_progress)
                    running.remove(ended)
                    if not ended.lost:
                        status = statuses[ended.cell_id] = _final_status(ended)
                        work.ended(ended.cell_id)
                        on_progress(ended.cell_id, final_progress(status))
        except KeyboardInterrupt:
            _stop(running, work)
            raise Interrupted(f"interrupted with {len(statuses)} of {total} cells ended") from None
        except BaseException:
            _stop(running, work)
            raise
    return statuses


def _keep_limits(running: Sequence[_Running], limits: Limits) -> None:
    """End the cells that are over a limit."""
    for each in running:
        seconds = time.monotonic() - each.since
        said: dict[str, Any] = {"seconds": seconds, **each.job.identity}
        if each.ended_as is not None:
            each.end(each.ended_as)
        elif reason := limits.overtime(seconds):
            each.end(StatusRecord(state="timed_out", reason=reason, **said))
        elif reason := limits.over_memory(each.process.pid or 0):
            each.end(StatusRecord(state="failed", reason=reason, **said))
            each.process.kill()  # it may need the memory of others to end in good order


def _give_up(running: Sequence[_Running], lost: Sequence[str]) -> None:
    """End the cells that another run has taken over, whose folders are its own now."""
    for each in running:
        if each.cell_id in lost:
            each.lost = True
            each.process.kill()


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
    tell = _telling(events)
    tell(CellProgress(0.0, "loading"))  # before anything of the folder is touched
    _redirect_output(job.folder / "log.txt")
    print(f"process {os.getpid()}, {threads} threads: {job.config.cell_id}", flush=True)
    import torch

    from benchmark.cell import run_cell

    torch.set_num_threads(threads)
    try:
        run_cell(job, tell, stop)
    except OSError as error:  # of the disk: not even a status could be written
        events.send(StatusRecord(state="failed", reason=str(error), **job.identity))


def _telling(events: Connection) -> Callable[[CellProgress], None]:
    """Sends progress; ends the process where nobody listens any more. The run has died then, and
    another may have taken the cell over: this one must not say that it has failed."""

    def tell(progress: CellProgress) -> None:
        try:
            events.send(progress)
        except BrokenPipeError:
            os._exit(1)

    return tell


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
    if not running:
        time.sleep(TICK_SECONDS)  # others work on all that is left
        return
    by_handle = {each.events: each for each in running if each.open}
    ready = wait([*by_handle, *(each.process.sentinel for each in running)], TICK_SECONDS)
    for handle in ready:
        if isinstance(handle, Connection):
            _receive(by_handle[handle], on_progress)


def _receive(cell: _Running, on_progress: OnProgress) -> None:
    try:
        event = cell.events.recv()
    except (EOFError, OSError):
        cell.open = False
        return
    if isinstance(event, StatusRecord):
        cell.ended_as = cell.ended_as or event
    else:
        on_progress(cell.cell_id, event)


def _drain(cell: _Running, on_progress: OnProgress) -> None:
    """Pass on what an ended process had still sent."""
    while cell.open and cell.events.poll():
        _receive(cell, on_progress)
    cell.events.close()


def _final_status(cell: _Running) -> StatusRecord:
    """The status the process left; if it was cut short, one that says so takes its place."""
    cell.process.join()
    status = left(cell.job)
    if status is not None and (cell.ended_as is None or status.state == "done"):
        return status
    status = cell.ended_as or StatusRecord(
        state="failed", reason=_ending(cell.process.exitcode), **cell.job.identity
    )
    record(cell.job, status)
    return status


def left(job: CellJob) -> StatusRecord | None:
    """The final status that a cell has left once it has ended; None if it was cut short."""
    path = job.folder / "status.json"
    status = store.read_json(path, StatusRecord) if path.exists() else None
    return status if status and status.state in ("done", *FAILURES) else None


def record(job: CellJob, status: StatusRecord) -> None:
    """Write a cell's status, where the disk lets one: without it the cell has no results, and a
    later run does it again."""
    with suppress(OSError):
        store.write_json(job.folder / "status.json", status)


def _ending(exit_code: int | None) -> str:
    log = "see log.txt"
    if exit_code is None or exit_code >= 0:
        return f"the process ended with exit code {exit_code} before the cell was done; {log}"
    name = signal.Signals(-exit_code).name
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{memory}; {log}"


def final_progress(status: StatusRecord) -> CellProgress:
    """What is told of a cell that has ended."""
    return CellProgress(1.0, status.state, status.reason or f"in {status.seconds:.0f} s")


def _stop(running: Sequence[_Running], work: Work) -> None:
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
            each.process.join()
        if each.lost:
            continue
        if left(each.job) is None:
            status = StatusRecord(state="interrupted", reason="interrupted", **each.job.identity)
            record(each.job, status)
        work.ended(each.cell_id)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
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
