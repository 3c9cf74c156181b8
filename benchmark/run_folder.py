"""The folder of a run: a new one, or one to finish."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import UsageError
from results import store
from results.records import RunRecord, StatusRecord

RUNS = Path("runs")
"""Where run folders go unless ``--out`` says otherwise, below the current folder."""
HOW_NOT_WHAT = ("workers", "threads", "description")
"""Parts of a suite that do not decide what its cells measure."""


def next_free(suite: str) -> Path:
    """Folder ``runs/<suite>-<NNN>`` of the next free number; not created."""
    pattern = re.compile(re.escape(suite) + r"-(\d+)")
    entries = RUNS.iterdir() if RUNS.is_dir() else []
    matches = (pattern.fullmatch(entry.name) for entry in entries)
    return RUNS / f"{suite}-{max((int(m[1]) for m in matches if m), default=0) + 1:03}"


def create(folder: Path) -> None:
    """Make the folder; raises ``UsageError`` where that cannot be."""
    try:
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
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
        raise UsageError(f"--out {folder}: not empty and not a run folder (no run.json in it)")
    try:
        before = store.read_json(path, RunRecord)
    except store.ResultsError as error:
        raise UsageError(f"--out {folder}: {error}") from error
    changes = _changes(_what(before.suite_config), _what(record.suite_config))
    if not changes and before.protocol != record.protocol:
        # Version 1 kept the hash alone.
        known = before.protocol_content
        changes = _changes(known, record.protocol_content) if known else ["protocol"]
    if changes:
        raise UsageError(
            f"--out {folder}: holds a run with other settings ({', '.join(changes)}); "
            f"name another folder"
        )


def unfinished(folder: Path, cell_ids: Sequence[str]) -> list[str]:
    """Cells that are not done in the folder, in order; raises ``UsageError`` if damaged."""
    return [cell_id for cell_id in cell_ids if _state(folder, cell_id) != "done"]


def clear_cell(folder: Path, cell_id: str) -> Path:
    """An empty folder for a cell; what an earlier attempt left is removed."""
    path = store.cell_folder(folder, cell_id)
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def _state(folder: Path, cell_id: str) -> str:
    path = store.cell_folder(folder, cell_id) / "status.json"
    if not path.exists():
        return "pending"
    try:
        return store.read_json(path, StatusRecord).state
    except store.ResultsError:
        return "failed"  # a status that cannot be read proves nothing: run the cell again


def _what(suite: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in suite.items() if key not in HOW_NOT_WHAT}


def _changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Key paths whose values differ; a key that an older version lacks is as good as empty."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        nested = (_changes(before.get(k), after.get(k), f"{path}.{k}" if path else k) for k in keys)
        return [change for changes in nested for change in changes]
    return [] if before == after or (before is None and after in ([], {})) else [path]
