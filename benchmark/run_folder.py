"""The folder of a run: a new one, or one to finish."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark import claims
from benchmark.errors import NothingToReport, UsageError
from results import store
from results.records import RunRecord, StatusRecord

RUNS = Path("runs")
"""Where run folders go unless ``--out`` says otherwise, below the current folder."""
HOW_NOT_WHAT = (
    "workers",
    "threads",
    "description",
    "time_limit",
    "memory_limit",
    "checkpoint_every",
    "cpus_per_cell",
    "gpus_per_cell",
)
"""Parts of a suite that do not decide what its cells measure."""


def next_free(suite: str) -> Path:
    """Folder ``runs/<suite>-<NNN>`` of the next free number; not created."""
    pattern = re.compile(re.escape(suite) + r"-(\d+)")
    entries = RUNS.iterdir() if RUNS.is_dir() else []
    matches = (pattern.fullmatch(entry.name) for entry in entries)
    return RUNS / f"{suite}-{max((int(m[1]) for m in matches if m), default=0) + 1:03}"


def latest() -> Path:
    """The run folder below :data:`RUNS` that was begun last; raises ``NothingToReport``."""
    found = [path for path in RUNS.glob("*/run.json") if path.is_file()]
    if not found:
        raise NothingToReport(f"no run in {RUNS}: name the folder of one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def begin(folder: Path, record: RunRecord) -> None:
    """Make the folder, or go on in it, and write what its run is.

    Of several runs that begin at once one after another does, so that none finds half of what
    another makes. Raises ``UsageError`` where that cannot be, and where another run with other
    settings has begun there since :func:`check_usable` was asked.
    """
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        claims.folder(folder).mkdir(exist_ok=True)
        with claims.locked(folder):
            check_usable(folder, record)
            store.write_json(folder / "run.json", record)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error


def check_usable(folder: Path, record: RunRecord) -> None:
    """Pass a folder that does not exist, is empty, or holds a run of the same suite.

    Raises ``UsageError`` for any other: nothing of somebody else's is ever overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: is a file")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    path = folder / "run.json"
    if not path.is_file():
        if _is_beginning(folder):
            return
        raise UsageError(f"--out {folder}: not empty and not a run folder (no run.json in it)")
    try:
        before = store.read_json(path, RunRecord)
    except store.ResultsError as error:
        raise UsageError(f"--out {folder}: {error}") from error
    differing = changes(_what(before.suite_config), _what(record.suite_config))
    if not differing and before.protocol != record.protocol:
        # Version 1 kept the hash alone.
        known = before.protocol_content
        differing = changes(known, record.protocol_content) if known else ["protocol"]
    if differing:
        raise UsageError(
            f"--out {folder}: holds a run with other settings ({', '.join(differing)}); "
            f"name another folder"
        )


def _is_beginning(folder: Path) -> bool:
    """Whether all that is there is what another run makes up to its record, now."""
    made = {"cells", "claims", "run.json"}
    others = [each for each in folder.iterdir() if each.name not in made and each.suffix != ".part"]
    return not others and not any((folder / "cells").glob("*"))


def clear_cell(folder: Path, cell_id: str) -> Path:
    """A folder for a cell to run in. What an earlier attempt left is removed, unless there are
    checkpoints: the cell itself tells what of it they vouch for."""
    path = store.cell_folder(folder, cell_id)
    if any(store.checkpoints_folder(path).glob("*")):
        (path / "status.json").unlink(missing_ok=True)
        return path
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def remove_checkpoints(folder: Path, done: Iterable[str]) -> None:
    """Remove what cells could go on from that are done, and were killed just before they did."""
    for cell_id in done:
        path = store.checkpoints_folder(store.cell_folder(folder, cell_id))
        shutil.rmtree(path, ignore_errors=True)


def superseded(folder: Path) -> Path:
    """Where cells are that were run anew because their code or settings had changed."""
    return folder / "superseded"


def set_aside_if_stale(folder: Path, cell_id: str, key: str) -> None:
    """Move a cell of another key out of the way; it is lost only when somebody prunes it."""
    path = store.cell_folder(folder, cell_id)
    try:
        status = store.read_json(path / "status.json", StatusRecord)
    except store.ResultsError:
        return
    if status.key in ("", key):
        return
    target = superseded(folder)
    target.mkdir(exist_ok=True)
    number = len(list(target.glob(f"{cell_id}--*"))) + 1
    path.rename(target / f"{cell_id}--{number}")


def _what(suite: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in suite.items() if key not in HOW_NOT_WHAT}


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Key paths whose values differ; a key that an older version lacks is as good as empty."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        nested = (changes(before.get(k), after.get(k), f"{path}.{k}" if path else k) for k in keys)
        return [change for inner in nested for change in inner]
    return [] if before == after or (before is None and after in ([], {})) else [path]
