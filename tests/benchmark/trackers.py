"""What trackers have stored of a cell, read from their own files: ``{step: {name: value}}``."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

Stored = dict[int, dict[str, float]]
BLOCK, HEADER, LEAD = 32768, 7, 7
"""Bytes of a block, of what precedes each piece in it, and of the file's own beginning."""
WHOLE, LAST = 1, 4
"""Kinds of pieces that a record ends with."""


def of_tensorboard(run: Path, cell: str) -> Stored:
    """From the events of a cell."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / cell))
    events.Reload()
    found: Stored = defaultdict(dict)
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found[event.step][name] = event.value
    return found


def of_wandb(run: Path, cell: str) -> Stored:
    """From the log of the offline run that has the cell's name."""
    from wandb.proto import wandb_internal_pb2

    for path in run.glob("wandb/offline-run-*/run-*.wandb"):
        name = ""
        found: Stored = defaultdict(dict)
        for part in _wandb_parts(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(part)
            if record.HasField("run"):
                name = record.run.display_name
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                if not key.startswith("_"):  # its own: the time, the step
                    found[record.history.step.num][key] = float(json.loads(item.value_json))
        if name == cell:
            return found
    raise AssertionError(f"no run of {cell}")


def _wandb_parts(content: bytes) -> Iterator[bytes]:
    """Records of a log in blocks, as LevelDB writes them."""
    place, record = LEAD, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        size = int.from_bytes(content[place + 4 : place + 6], "little")
        record += content[place + HEADER : place + HEADER + size]
        if content[place + 6] in (WHOLE, LAST):
            yield record
            record = b""
        place += HEADER + size


def of_trackio(run: Path, cell: str) -> Stored:
    """From the database of the project, ``TRACKIO_DIR`` being the folder ``trackio`` of the run."""
    found: Stored = defaultdict(dict)
    with sqlite3.connect(run / "trackio" / "alignment-benchmark.db") as database:
        rows = database.execute("select step, metrics from metrics where run_name = ?", (cell,))
        for step, metrics in rows:
            found[step] |= json.loads(metrics)
    return found


READERS: dict[str, Callable[[Path, str], Stored]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "trackio": of_trackio,
}
"""Tracker to what reads it."""
