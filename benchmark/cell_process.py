"""What happens in a process of a cell, which ``benchmark.workers`` starts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmark import stopping
from benchmark.jobs import CellJob, Place
from benchmark.progress import CellProgress
from results.records import StatusRecord


@dataclass(frozen=True)
class Fault:
    """Why one of several processes of a cell cannot go on."""

    status: StatusRecord
    """As it would be of the cell."""
    lost: bool
    """Whether all that is wrong is that the others do not answer."""


def run(job: CellJob, events: Connection, threads: int, place: Place) -> None:
    """Body of a cell's process, of the first or only one or of another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    stop = stopping.Stop()
    stop.listen()
    stopping.end_with_run()
    tell = _telling(events)
    tell(CellProgress(0.0, "loading"))  # before anything of the folder is touched
    _redirect_output(job.folder / "log.txt", place)
    if place.leads:
        print(f"process {os.getpid()}, {threads} threads: {job.config.cell_id}", flush=True)
    if place.count == 1:
        _run_alone(job, events, threads, tell, stop)
    else:
        _run_together(job, events, threads, place, tell, stop)


def _run_alone(
    job: CellJob,
    events: Connection,
    threads: int,
    tell: Callable[[CellProgress], None],
    stop: stopping.Stop,
) -> None:
    import torch

    from benchmark.cell import run_cell

    torch.set_num_threads(threads)
    try:
        run_cell(job, tell, stop)
    except OSError as error:  # of the disk: not even a status could be written
        events.send(StatusRecord(state="failed", reason=str(error), **job.identity))


def _run_together(
    job: CellJob,
    events: Connection,
    threads: int,
    place: Place,
    tell: Callable[[CellProgress], None],
    stop: stopping.Stop,
) -> None:
    import torch

    from benchmark.cell import failure, follow_cell, run_cell
    from benchmark.ranks import Ranks
    from methods import processes

    try:
        ranks = Ranks(place)
        ranks.join(job.model, job.config.seed, threads)
        torch.set_num_threads(threads)
        if place.leads:
            run_cell(job, tell, stop, ranks)
        else:
            follow_cell(job, ranks, stop)
    except Exception as error:
        state, reason, trace = failure(error)
        reason = reason if place.leads else f"process {place.rank} of {place.count}: {reason}"
        status = StatusRecord(state=state, reason=reason, traceback=trace, **job.identity)
        events.send(Fault(status, lost=isinstance(error, processes.Lost)))
    # Without torch's own end of a group, which may wait for processes that are gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _telling(events: Connection) -> Callable[[CellProgress], None]:
    """Sends progress; ends the process where nobody listens any more. The run has died then, and
    another may have taken the cell over: this one must not say that it has failed."""

    def tell(progress: CellProgress) -> None:
        try:
            events.send(progress)
        except BrokenPipeError:
            os._exit(1)

    return tell


def _redirect_output(path: Path, place: Place) -> None:
    """Send stdout and stderr, those of libraries in C included, to a file; of the processes that
    follow another one, stderr alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log if place.leads else nowhere, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nowhere)
