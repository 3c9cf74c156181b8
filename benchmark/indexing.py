"""``benchmark index`` and ``export``: a run folder as tables.

Both are made from the folder at any time, a cell at a time, and hold nothing that is not in it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmark import standing
from benchmark.errors import NothingToReport, UsageError
from benchmark.run_status import read_record
from results import store
from results.record_text import ResultsError
from results.records import SCHEMA_VERSION, Counts, EvaluationRecord, RunRecord
from results.store import Cell

COUNTS = tuple(Counts.model_fields)
TABLES = {
    "run": "suite TEXT, protocol TEXT, schema_version INTEGER, command TEXT",
    "cells": "cell_id TEXT PRIMARY KEY, method TEXT, reward TEXT, seed INTEGER, state TEXT, "
    "note TEXT, key TEXT, source TEXT, seconds REAL, peak_memory_bytes INTEGER, joules REAL, "
    "machine TEXT, picked_round INTEGER, " + ", ".join(f"{name} INTEGER" for name in COUNTS),
    "scores": "cell_id TEXT, round INTEGER, images INTEGER, training_seconds REAL, "
    "picked INTEGER, kind TEXT, name TEXT, value REAL",
    "measures": "cell_id TEXT, round INTEGER, metric TEXT, encoder TEXT, value REAL, refused TEXT",
}
"""Name to columns. ``scores`` are means over the images and prompts of an evaluation; ``kind`` is
``reward`` or ``diversity``, of the encoder ``name``. A value that is not finite is NULL."""
VIEWS = {
    "final": "SELECT cells.*, scores.kind, scores.name, scores.value FROM cells "
    "JOIN scores USING (cell_id) WHERE scores.picked AND cells.state = 'done'"
}
BATCH = 200
"""Cells that are written to a Parquet file together."""

Row = Sequence[Any]


def write_index(folder: Path, out: Path | None) -> Path:
    """Write the index, by default ``index.sqlite`` in the folder; its path.

    Raises ``NothingToReport`` for a folder without a readable run, ``UsageError`` where the file
    cannot be written.
    """
    record = read_record(folder)
    target = out or folder / "index.sqlite"
    return _written(target, lambda path: _fill(path, folder, record))


def _fill(path: Path, folder: Path, record: RunRecord) -> None:
    cells = standing.read(folder, record, standing.by_source(record))
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("PRAGMA journal_mode = OFF")  # the file is moved into place once it is whole
        for name, columns in TABLES.items():
            base.execute(f"CREATE TABLE {name} ({columns})")
        for name, query in VIEWS.items():
            base.execute(f"CREATE VIEW {name} AS {query}")
        run = (record.suite, record.protocol, record.schema_version, record.command)
        _insert(base, "run", [run])
        for cell_id, found in cells.items():
            cell = store.read_cell(folder, cell_id)
            _insert(base, "cells", [_cell_row(cell, found)])
            _insert(base, "scores", _score_rows(cell))
            _insert(base, "measures", _measure_rows(cell))
        base.execute("CREATE INDEX of_cell ON scores (cell_id)")


def _insert(base: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    if rows:
        places = ", ".join("?" * len(rows[0]))
        base.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def _cell_row(cell: Cell, found: standing.CellStanding) -> Row:
    status = cell.status
    where = cell.environment
    return (
        *(cell.cell_id, cell.method, cell.reward, cell.seed, found.state, found.note),
        *(status.key, status.source, status.seconds, status.peak_memory_bytes, status.joules),
        (where.gpu or where.cpu) if where else None,
        cell.picked.round if cell.evaluations else None,
        *(getattr(status.counts, name) for name in COUNTS),
    )


def _score_rows(cell: Cell) -> list[Row]:
    rows: list[Row] = []
    for record in cell.evaluations:
        place = (cell.cell_id, record.round, record.images, record.training_seconds)
        picked = record is cell.picked
        for kind, name, prompts in _scores(record):
            mean = sum(prompts) / len(prompts) if prompts else None
            rows.append((*place, picked, kind, name, mean))
    return rows


def _scores(record: EvaluationRecord) -> Iterator[tuple[str, str, list[float]]]:
    """Kind, name, and the mean of each prompt."""
    for name, prompts in record.rewards.items():
        yield "reward", name, [sum(images) / len(images) for images in prompts if images]
    for name, values in record.diversity.items():
        yield "diversity", name, values


def _measure_rows(cell: Cell) -> list[Row]:
    return [
        (cell.cell_id, each.round, metric, each.encoder, each.value, each.refused)
        for metric, record in cell.measures.items()
        for each in record.values
    ]


def write_parquet(folder: Path, out: Path) -> Path:
    """Write every score of the cells that are done, a row for each evaluation, reward or encoder,
    and prompt: the mean over its images. Returns the path; errors are as of :func:`write_index`.
    """
    try:
        import pyarrow  # noqa: F401 (told before anything is read)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--parquet needs the package {error.name}: pip install -e '.[parquet]'"
        ) from error
    record = read_record(folder)
    return _written(out, lambda path: _fill_parquet(path, folder, record))


def _fill_parquet(path: Path, folder: Path, record: RunRecord) -> None:
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.int64()
    fields = {"protocol": text, "cell_id": text, "key": text, "method": text, "reward": text}
    fields |= {"seed": number, "round": number, "images": number, "picked": pyarrow.bool_()}
    fields |= {"kind": text, "name": text, "prompt_index": number, "prompt": text}
    metadata = {"schema_version": str(SCHEMA_VERSION)}
    schema = pyarrow.schema(fields | {"value": pyarrow.float64()}, metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(record.cells), BATCH):
            columns: list[list[Any]] = [[] for _ in schema]
            for cell_id in record.cells[start : start + BATCH]:
                for row in _prompt_rows(store.read_cell(folder, cell_id), record.protocol):
                    for column, value in zip(columns, row, strict=True):
                        column.append(value)
            writer.write_table(pyarrow.table(columns, schema=schema))


def _prompt_rows(cell: Cell, protocol: str) -> Iterator[Row]:
    if cell.status.state != "done" or cell.config is None:
        return
    place = (protocol, cell.cell_id, cell.status.key, cell.method, cell.reward, cell.seed)
    for record in cell.evaluations:
        when = (record.round, record.images, record is cell.picked)
        for kind, name, prompts in _scores(record):
            for i, value in enumerate(prompts):
                yield (*place, *when, kind, name, i, cell.config.evaluation_prompts[i], value)


def _written(target: Path, write: Callable[[Path], None]) -> Path:
    """Have a file written under a temporary name beside its own, then moved into place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".part", dir=target.parent
        )
        os.close(handle)
        path = Path(name)
        try:
            write(path)
            path.chmod(0o644)
            path.replace(target)
        finally:
            path.unlink(missing_ok=True)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot write {target}: {why}") from error
    return target
