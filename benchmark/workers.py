"""Runs cells, each in a process of its own or in several (``benchmark.ranks``), some at a time.

A process that crashes or is killed takes nothing with it: its cell is marked failed and the others
go on. Processes come from a fork server that has imported the heavy libraries once, so a cell
starts in a fraction of the time that importing them takes; the server itself runs no tensor code,
so nothing that cannot be forked exists in it yet.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Protocol

from benchmark.errors import Interrupted
from benchmark.jobs import CellJob
from benchmark.limits import Limits
from benchmark.progress import CellProgress
from benchmark.running_cell import OnProgress, RunningCell, start
from results import store
from results.records import StatusRecord
from results.states import FAILURES

PRELOADED = ["diffusers", "peft", "transformers", "timm", "open_clip", "benchmark.cell"]
"""Modules the fork server imports before the first cell."""
GRACE_SECONDS = 45.0
"""How long cells of a run that is stopped may take to end, before they are killed: each finishes
its round and saves where it is. Less than claims stand without being touched."""
TICK_SECONDS = 1.0
"""Between two looks at what tells nothing by itself: limits, and cells that others work on."""


class Work(Protocol):
    """The cells to run; see ``benchmark.sharing``."""

    waiting: list[str]

    def take(self) -> CellJob | None: ...
    def started(self, cell_id: str, *processes: int) -> None: ...
    def ended(self, cell_id: str) -> None: ...
    def beat(self) -> list[str]: ...


def run_all(
    work: Work, workers: int, threads: int, limits: Limits, on_progress: OnProgress
) -> dict[str, StatusRecord]:
    """Run all cells, ``workers`` at a time with ``threads`` threads each; the final status of those
    that ran here. Ends when others have ended theirs too.

    Raises ``Interrupted`` on SIGINT and SIGTERM, once the running processes have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    _start_server()
    running: list[RunningCell] = []
    statuses: dict[str, StatusRecord] = {}
    total = len(work.waiting)
    with sigterm_as_interrupt():
        try:
            while work.waiting or running:
                while len(running) < workers and (job := work.take()):
                    running.append(start(context, job, threads))
                    pids = [each.process.pid or 0 for each in running[-1].members]
                    work.started(job.config.cell_id, *pids)
                _wait(running, on_progress)
                _keep_limits(running, limits)
                _give_up(running, work.beat())
                for ended in [each for each in running if not each.alive]:
                    ended.drain(on_progress)
                    ended.forget()
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


def _start_server() -> None:
    """Start the fork server deaf to Ctrl-C, which a terminal sends to it too and this process
    handles: while it imports it would die of it, with a traceback."""
    if threading.current_thread() is not threading.main_thread():
        return  # it is started with the first process
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _keep_limits(running: Sequence[RunningCell], limits: Limits) -> None:
    """End the cells that are over a limit."""
    for each in running:
        seconds = time.monotonic() - each.since
        said: dict[str, Any] = {"seconds": seconds, **each.job.identity}
        each.keep_together()
        if each.ended_as is not None:
            each.end(each.ended_as)
        elif reason := limits.overtime(seconds):
            each.end(StatusRecord(state="timed_out", reason=reason, **said))
        elif reason := limits.over_memory(*(m.process.pid or 0 for m in each.members)):
            each.end(StatusRecord(state="failed", reason=reason, **said))
            each.kill()  # it may need the memory of others to end in good order


def _give_up(running: Sequence[RunningCell], lost: Sequence[str]) -> None:
    """End the cells that another run has taken over, whose folders are its own now."""
    for each in running:
        if each.cell_id in lost:
            each.lost = True
            each.kill()


def _wait(running: Sequence[RunningCell], on_progress: OnProgress) -> None:
    """Wait for an event or the end of a process, and pass on all events that are there."""
    if not running:
        time.sleep(TICK_SECONDS)  # others work on all that is left
        return
    by_handle = {m.events: (each, m) for each in running for m in each.members if m.open}
    sentinels = [m.process.sentinel for each in running for m in each.alive]
    for handle in wait([*by_handle, *sentinels], TICK_SECONDS):
        if isinstance(handle, Connection):
            cell, member = by_handle[handle]
            cell.receive(member, on_progress)


def _final_status(cell: RunningCell) -> StatusRecord:
    """The status the process left; if it was cut short, one that says so takes its place."""
    for member in cell.members:
        member.process.join()
    status = left(cell.job)
    if status is not None and (cell.ended_as is None or status.state == "done"):
        return status
    status = cell.ended_as or cell.failure()
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


def final_progress(status: StatusRecord) -> CellProgress:
    """What is told of a cell that has ended."""
    return CellProgress(1.0, status.state, status.reason or f"in {status.seconds:.0f} s")


def _stop(running: Sequence[RunningCell], work: Work) -> None:
    """End all processes and mark the cells that are not done; at once if interrupted again."""
    for each in running:
        each.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    processes = [member.process for each in running for member in each.members]
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        pass
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    for each in running:
        each.forget()
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
