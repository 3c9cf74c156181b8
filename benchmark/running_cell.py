"""The processes of a running cell, seen from the run: one, or several that train together."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmark import cell_process
from benchmark.cell_process import Fault
from benchmark.jobs import CellJob, Place
from benchmark.progress import CellProgress
from results.records import StatusRecord

OnProgress = Callable[[str, CellProgress], None]
LIMIT_GRACE_SECONDS = 5.0
"""How long the processes of a cell may take to end that is over its limit, and may hang, or that
has lost one of them."""


@dataclass
class Member:
    """One process of a cell."""

    rank: int
    process: BaseProcess
    events: Connection
    open: bool = field(default=True)
    """Whether more events may come."""
    fault: Fault | None = None
    """What it told of why it cannot go on, one of several."""

    def ending(self, count: int) -> str:
        """How it ended, one of ``count``."""
        which = f"process {self.rank} of {count}: " if self.rank else ""
        return which + _ending(self.process.exitcode)


@dataclass
class RunningCell:
    """A cell with its processes, the one that leads it first."""

    job: CellJob
    members: list[Member]
    file: Path | None
    """By which several find each other."""
    since: float = field(default_factory=time.monotonic)
    ended_as: StatusRecord | None = None
    """What is to be said of a cell that was ended here."""
    lost: bool = False
    """Whether another run has taken the cell over."""
    cause: str = ""
    """How the first of several processes died that did not end by itself."""
    apart_since: float | None = None
    """Since when one of several processes is gone, without which the others cannot go on."""

    @property
    def cell_id(self) -> str:
        return self.job.config.cell_id

    @property
    def alive(self) -> list[Member]:
        return [each for each in self.members if each.process.is_alive()]

    def end(self, status: StatusRecord) -> None:
        """End the processes for a reason of its own; killed if they do not end when asked to."""
        if self.ended_as is None:
            self.ended_as = status
            self.terminate()
        elif time.monotonic() - self.since > self.ended_as.seconds + LIMIT_GRACE_SECONDS:
            self.kill()

    def terminate(self) -> None:
        for each in self.alive:
            each.process.terminate()

    def kill(self) -> None:
        for each in self.alive:
            each.process.kill()

    def keep_together(self) -> None:
        """End several processes of which one is gone: on a GPU they would wait for it for ever.

        One that follows ends before the one that leads, once training is over.
        """
        if len(self.members) == 1:
            return
        if self.apart_since is None:
            crashed = [m for m in self.members if m.process.exitcode not in (None, 0)]
            if crashed:
                self.cause = crashed[0].ending(len(self.members))
            if crashed or not self.members[0].process.is_alive() or self.faults:
                self.apart_since = time.monotonic()
        elif time.monotonic() - self.apart_since > LIMIT_GRACE_SECONDS:
            self.kill()

    @property
    def faults(self) -> list[Fault]:
        """What several processes told of why they cannot go on."""
        return [member.fault for member in self.members if member.fault is not None]

    def failure(self) -> StatusRecord:
        """What is said of a cell whose processes have ended and left no status."""
        self.keep_together()  # they may all have ended since the last look
        if causes := [fault for fault in self.faults if not fault.lost]:
            return causes[0].status
        if self.faults and not self.cause:
            return self.faults[0].status
        reason = self.cause or self.members[0].ending(len(self.members))
        return StatusRecord(state="failed", reason=reason, **self.job.identity)

    def receive(self, member: Member, on_progress: OnProgress) -> None:
        """Take what a process has sent, and pass on how far the cell is."""
        try:
            event = member.events.recv()
        except (EOFError, OSError):
            member.open = False
            return
        if isinstance(event, Fault):
            member.fault = event
        elif isinstance(event, StatusRecord):
            self.ended_as = self.ended_as or event
        elif member is self.members[0]:
            on_progress(self.cell_id, event)

    def drain(self, on_progress: OnProgress) -> None:
        """Take what ended processes had still sent."""
        for member in self.members:
            while member.open and member.events.poll():
                self.receive(member, on_progress)
            member.events.close()

    def forget(self) -> None:
        """Remove what several processes found each other by."""
        if self.file is not None:
            shutil.rmtree(self.file.parent, ignore_errors=True)


def start(
    context: multiprocessing.context.ForkServerContext, job: CellJob, threads: int
) -> RunningCell:
    """Start the processes of a cell."""
    count = job.model.processes
    # A folder of the machine's own, as a file system of several machines may have no locks.
    file = Path(tempfile.mkdtemp(prefix="benchmark-")) / "ranks" if count > 1 else None
    members = []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=cell_process.run,
            args=(job, sender, threads, Place(rank, count, file)),
            daemon=True,
        )
        process.start()
        sender.close()  # else the pipe would not end with the process
        members.append(Member(rank, process, receiver))
    return RunningCell(job, members, file)


def _ending(exit_code: int | None) -> str:
    log = "see log.txt"
    if exit_code is None or exit_code >= 0:
        return f"the process ended with exit code {exit_code} before the cell was done; {log}"
    name = signal.Signals(-exit_code).name
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{memory}; {log}"
