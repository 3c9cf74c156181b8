"""``benchmark prune``: what of a run folder is of no use any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark import claims, run_folder, standing
from benchmark.errors import UsageError
from benchmark.run_status import read_record
from results import store
from results.records import RunRecord


@dataclass(frozen=True)
class Useless:
    """A file or folder that can go."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes."""
        if self.path.is_symlink() or self.path.is_file():
            return self.path.lstat().st_size
        return sum(each.lstat().st_size for each in self.path.rglob("*") if not each.is_dir())


def prune(folder: Path, delete: bool) -> None:
    """Print what can go, and delete it if ``delete``.

    Raises ``NothingToReport`` for a folder without a run, ``UsageError`` for what cannot be
    deleted.
    """
    found = list(useless(folder, read_record(folder)))
    if not found:
        print(f"{folder}: nothing to prune")
        return
    total = 0
    for each in found:
        size = each.size
        total += size
        print(f"{each.path}  {size / 1e6:.1f} MB  {each.why}")
        if delete:
            _delete(each.path)
    what = f"{len(found)} in {folder}, {total / 1e6:.1f} MB"
    print(f"deleted {what}" if delete else f"{what}; --yes deletes them")


def useless(folder: Path, record: RunRecord) -> Iterator[Useless]:
    """Cells that were run anew or are stale, folders of no cell, and what processes that died
    left behind. Nothing of a cell that somebody works on is among them."""
    for path in sorted(run_folder.superseded(folder).glob("*")):
        yield Useless(path, "superseded: the cell was run anew")
    cells = standing.read(folder, record, standing.by_source(record))
    living = claims.living(folder)
    whole = set()
    for path in sorted((folder / "cells").glob("*")):
        if path.name in living:
            continue
        if path.name not in cells:
            whole.add(path.name)
            yield Useless(path, "no cell of this run")
        elif cells[path.name].state == "stale":
            whole.add(path.name)
            yield Useless(path, f"stale: {cells[path.name].note}")
    for path in sorted(claims.folder(folder).glob("[!.]*.json")):
        if path.stem not in living:
            yield Useless(path, "claim of a process that has ended")
    for path in _leftovers(folder, record):
        if path.parent.name not in whole and not living:
            yield Useless(path, "left by a write that was cut short")


def _leftovers(folder: Path, record: RunRecord) -> Iterator[Path]:
    yield from sorted(folder.glob(".*.part"))
    yield from sorted(claims.folder(folder).glob(".*.part"))
    for cell_id in record.cells:
        yield from sorted(store.cell_folder(folder, cell_id).rglob(".*.part"))


def _delete(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot delete {path}: {error.strerror}") from error
