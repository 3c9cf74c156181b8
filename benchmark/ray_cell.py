"""A cell as a task of a Ray cluster: what happens on the node that Ray has picked for it.

There the cell runs as a run on that machine alone would have it, in a process of its own and within
the same limits (``benchmark.workers``). Only the loss of the node, or of Ray's own process on it,
ends the task without a word, and Ray then runs it again elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from benchmark import environment, run_folder, workers
from benchmark.errors import Interrupted
from benchmark.fingerprint import fingerprint
from benchmark.jobs import CellJob
from benchmark.limits import Limits
from benchmark.progress import CellProgress
from results import store
from results.records import StatusRecord

COPY_SECONDS = 30.0
"""Between two copies of a cell's folder that leave its node while it runs."""

Files = dict[str, bytes]
"""By path in the cell's folder."""


@dataclass(frozen=True)
class Parcel:
    """What a node is told of a cell."""

    job: CellJob
    modules: list[str]
    """Those that the hash of its source is of."""
    threads: int
    gpus: float
    limits: Limits
    folder: Path
    """Of the run, on the machine of the run."""
    token: str
    """Name of a file in it, by which a node sees whether it has the same folder."""


@dataclass(frozen=True)
class Delivery:
    """What comes back."""

    status: StatusRecord
    files: Files | None
    """None where the cell has written into the folder of the run."""


class Post:
    """Between cells and their run, an actor on the machine of the run: what cells tell, and copies
    of the folders of those that cannot write into the run's, which outlive their nodes."""

    def __init__(self) -> None:
        self._told: list[tuple[str, CellProgress]] = []
        self._copies: dict[str, Files] = {}

    def tell(self, cell_id: str, progress: CellProgress) -> None:
        """Pass on how far a cell is."""
        self._told.append((cell_id, progress))

    def told(self) -> list[tuple[str, CellProgress]]:
        """What has been told since the last call."""
        told, self._told = self._told, []
        return told

    def keep(self, cell_id: str, files: Files) -> None:
        """Keep a copy of a cell's folder in place of the one before."""
        self._copies[cell_id] = files

    def copy_of(self, cell_id: str) -> Files:
        """The copy of a cell's folder; empty if there is none."""
        return self._copies.get(cell_id, {})

    def forget(self, cell_id: str) -> None:
        """A cell has ended."""
        self._copies.pop(cell_id, None)


def run(parcel: Parcel, post: Any) -> Delivery:
    """Run a cell here; ``post`` is the handle of the :class:`Post`."""
    job = parcel.job
    cell_id = job.config.cell_id
    node = socket.gethostname()
    post.tell.remote(cell_id, CellProgress(0.0, "loading", f"on {node}"))
    if (found := fingerprint(parcel.modules)) != job.config.source:
        reason = f"the code on {node} is not that of the run: {found}, not {job.config.source}"
        return Delivery(StatusRecord(state="failed", reason=reason, **job.identity), {})
    if not parcel.gpus:  # else the device "auto" would take one that Ray has given to nobody
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    described = environment.describe(job.environment.command, parcel.threads, bool(parcel.gpus))
    with _place(parcel) as (folder, shared):
        if not shared:
            write(store.cell_folder(folder, cell_id), ray.get(post.copy_of.remote(cell_id)))
        job = dataclasses.replace(
            job, environment=described, folder=run_folder.clear_cell(folder, cell_id)
        )
        one = _OneCell(job, None if shared else post)

        def tell(cell_id: str, progress: CellProgress) -> None:
            if not progress.final:  # the end is told by the run, once it has the results
                post.tell.remote(cell_id, progress)

        try:
            (status,) = workers.run_all(one, 1, parcel.threads, parcel.limits, tell).values()
        except Interrupted:
            status = store.read_json(job.folder / "status.json", StatusRecord)
            if not shared:  # what a cancelled task returns may be lost
                ray.get(post.keep.remote(cell_id, read(job.folder)))
        return Delivery(status, None if shared else read(job.folder))


@dataclass
class _OneCell:
    """The cells of a run of one cell; see ``workers.Work``."""

    job: CellJob
    post: Any
    """Where copies of the cell's folder go; None if it needs none."""
    waiting: list[str] = field(init=False)
    _copied: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.waiting = [self.job.config.cell_id]

    def take(self) -> CellJob | None:
        return self.job if self.waiting and self.waiting.pop() else None

    def started(self, cell_id: str, *processes: int) -> None:
        pass

    def ended(self, cell_id: str) -> None:
        pass

    def beat(self) -> list[str]:
        if self.post is not None and time.monotonic() - self._copied > COPY_SECONDS:
            self.post.keep.remote(self.job.config.cell_id, read(self.job.folder))
            self._copied = time.monotonic()
        return []


@contextmanager
def _place(parcel: Parcel) -> Iterator[tuple[Path, bool]]:
    """The folder of the run and True where this node can write into it, else a temporary one."""
    if (parcel.folder / parcel.token).is_file() and os.access(parcel.folder / "cells", os.W_OK):
        yield parcel.folder, True
        return
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        yield folder, False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read(folder: Path) -> Files:
    """The whole files of a cell's folder, without those that are being written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            try:
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
            except FileNotFoundError:  # removed since it was listed
                continue
    return found


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a cell's folder, its status last; raises ``ValueError`` for a path that
    leads out of it."""
    for name in sorted(files, key=lambda name: (name == "status.json", name)):
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} is no file of a cell")
        store.write_bytes(folder / path, files[name])
