"""Which run works on a cell: a claim, so that two runs on one folder never do a cell twice.

A claim is a file that one process alone can create; its holder touches it every few seconds. That
of a holder that has died is taken over. On the machine of the claim, death is seen by the process;
from another machine, by a file that stands still, watched on one's own clock: clocks of two
machines differ, and can be set back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from results import store
from results.record_parts import Record
from results.record_text import ResultsError, dump
from results.records import SCHEMA_VERSION

BEAT_SECONDS = 5.0
"""Between two touches of a claim."""
DEAD_SECONDS = 60.0
"""A claim from elsewhere that has not been touched for so long is taken over."""


class Claim(Record):
    """Who works on a cell."""

    schema_version: int = SCHEMA_VERSION
    run: str
    """Drawn at random by each process that runs cells."""
    host: str
    place: str
    """Hash of host, boot and process namespace: where the process ids below mean anything."""
    processes: dict[int, float]
    """Ids of the run's process and of the cell's, each with when it started in the terms of
    :func:`started`, since ids are used again."""

    @property
    def who(self) -> str:
        """In words."""
        return f"process {next(iter(self.processes))} on {self.host}"


def started(process: int) -> float | None:
    """When a process started, in whatever unit; None if there is none, or only its remains.

    On Linux in clock ticks since boot, which do not move when somebody sets the clock.
    """
    try:
        fields = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        return None if fields[0] in "ZX" else float(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None


@cache
def place() -> str:
    """Where process ids of this process mean anything."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def folder(run_folder: Path) -> Path:
    """Where the claims of a run are."""
    return run_folder / "claims"


def path(run_folder: Path, cell_id: str) -> Path:
    """The claim of one cell."""
    return folder(run_folder) / f"{cell_id}.json"


def read(file: Path) -> Claim | None:
    """A claim; None if there is none, or it is being written."""
    try:
        return store.read_json(file, Claim)
    except ResultsError:
        return None


def is_alive(file: Path, claim: Claim | None) -> bool:
    """Whether the holder of a claim lives, as far as one look can tell."""
    if claim is not None and claim.place == place():
        return any(started(process) == since for process, since in claim.processes.items())
    try:
        return time.time() - file.stat().st_mtime < DEAD_SECONDS
    except OSError:
        return False


def living(run_folder: Path) -> dict[str, str]:
    """Cells that somebody works on, with who that is."""
    found = {}
    for file in sorted(folder(run_folder).glob("[!.]*.json")):
        claim = read(file)
        if is_alive(file, claim):
            found[file.stem] = claim.who if claim else "a process that starts"
    return found


@dataclass
class Claims:
    """The claims of this process on the cells of a run folder."""

    run_folder: Path
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    held: dict[str, Claim] = field(default_factory=dict)
    _still: dict[Path, tuple[int, float]] = field(default_factory=dict)
    """Claim of somebody else to when it was last touched, and since when that has stood."""
    _beaten: float = 0.0

    def take(self, cell_id: str) -> bool:
        """Claim a cell; False if somebody has it. Raises ``OSError`` where the disk does."""
        file = path(self.run_folder, cell_id)
        claim = self._own(os.getpid())
        if not _create(file, claim) and not self._take_over(file, claim):
            return False
        self._still.pop(file, None)
        self.held[cell_id] = claim
        return True

    def add_processes(self, cell_id: str, *processes: int) -> None:
        """A cell is worked on for as long as one of its own processes lives too."""
        file = path(self.run_folder, cell_id)
        claim = self._own(os.getpid(), *processes)
        with locked(self.run_folder):
            if self._is_own(file):
                store.write_json(file, claim)
        self.held[cell_id] = claim

    def release(self, cell_id: str) -> None:
        """Give a cell back."""
        self.held.pop(cell_id, None)
        file = path(self.run_folder, cell_id)
        # One that cannot be removed ends with this process.
        with suppress(OSError), locked(self.run_folder):
            if self._is_own(file):
                file.unlink(missing_ok=True)

    def beat(self) -> list[str]:
        """Touch the claims where that is due; cells that somebody has taken over, after this
        process had stood still for too long."""
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return []
        self._beaten = time.monotonic()
        lost = []
        for cell_id in self.held:
            file = path(self.run_folder, cell_id)
            if self._is_own(file):
                with suppress(OSError):
                    os.utime(file)
            else:
                lost.append(cell_id)
        return lost

    def _own(self, *processes: int) -> Claim:
        living = {process: started(process) for process in processes}
        return Claim(
            run=self.run,
            host=socket.gethostname(),
            place=place(),
            processes={process: since for process, since in living.items() if since is not None},
        )

    def _is_own(self, file: Path) -> bool:
        claim = read(file)
        return claim is not None and claim.run == self.run

    def _take_over(self, file: Path, claim: Claim) -> bool:
        """Replace the claim of a holder that has died, under a lock: of two who have seen that,
        the second finds the claim of the first."""
        if not self._is_dead(file):
            return False
        with locked(self.run_folder):
            if not file.exists() or not self._is_dead(file):
                return False
            store.write_json(file, claim)
        return True

    def _is_dead(self, file: Path) -> bool:
        claim = read(file)
        if claim is not None and claim.place == place():
            return not is_alive(file, claim)
        try:
            touched = file.stat().st_mtime_ns
        except OSError:
            return False  # given back just now: the next look claims it
        before, since = self._still.get(file, (None, 0.0))
        if touched != before:
            self._still[file] = (touched, time.monotonic())
            return False
        return time.monotonic() - since > DEAD_SECONDS


def _create(file: Path, claim: Claim) -> bool:
    """Write a claim where there is none, which one of many processes can."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(dump(claim).encode())
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Alone among all who change claims or begin a run; the system lets go of it when a process
    dies."""
    with open(folder(run_folder) / "lock", "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
