"""``benchmark merge``: the results of two machines in one folder.

Both ran parts of one suite: other seeds, methods or rewards, or some of the same cells. What
contradicts is refused before anything is written.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import claims, run_folder, run_status, standing
from benchmark.errors import NothingToReport, UsageError
from benchmark.standing import TOLD, CellStanding
from results import store
from results.record_text import ResultsError, dump
from results.records import EvaluationRecord, RunRecord, SamplerRecord
from results.scores import NO_REWARD

PARTS = ("seeds", "methods", "rewards")
"""What two runs of a suite may each have a part of."""
MEASURED: dict[str, float | None] = {
    "training_seconds": 0.0,
    "joules": None,
    "sampling_images_per_second": 0.0,
    "peak_memory_bytes": None,
    "peak_gpu_allocated_bytes": None,
    "peak_gpu_reserved_bytes": None,
}
"""What of an evaluation differs between two that are the same: time, energy and memory."""


@dataclass(frozen=True)
class Source:
    """One of the folders."""

    folder: Path
    record: RunRecord
    cells: dict[str, CellStanding]


def merge(first: Path, second: Path, out: Path) -> None:
    """Write the cells of both into the new folder ``out``.

    Raises ``UsageError`` if ``out`` is not new, ``NothingToReport`` if a folder holds no run, a
    run goes on in it, or the two contradict.
    """
    if first.resolve() == second.resolve():
        raise UsageError(f"{first} and {second} are the same folder: name two to merge")
    if out.exists():
        raise UsageError(f"--out {out}: exists; name a new folder")
    a, b = (_read(folder) for folder in (first, second))
    try:
        record = _merged(a, b)
        chosen = {cell_id: _choose(a, b, cell_id) for cell_id in record.cells}
        _require_one_code(a, b)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    try:
        _write(out, record, chosen)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    cells = {cell_id: source.cells[cell_id] for cell_id, source in chosen.items()}
    print(f"run {out}: {run_status.total(cells)}")


def _read(folder: Path) -> Source:
    record = run_status.read_record(folder)
    if living := claims.living(folder):
        cell_id, who = next(iter(living.items()))
        raise NothingToReport(f"{folder}: cell {cell_id} is being run by {who}")
    return Source(folder, record, standing.read(folder, record, lambda cell_id, status: False))


def _merged(a: Source, b: Source) -> RunRecord:
    """One record for both; raises ``NothingToReport`` if they are not parts of one suite."""
    changes = run_folder.changes(_whole(a.record), _whole(b.record))
    own, others = a.record.suite_config, b.record.suite_config
    for method in a.record.methods.keys() & b.record.methods.keys():
        here, there = (each.get("methods", {}).get(method, {}) for each in (own, others))
        changes += run_folder.changes(here, there, f"methods.{method}")
    if not changes and a.record.protocol != b.record.protocol:
        changes = run_folder.changes(a.record.protocol_content, b.record.protocol_content)
        changes = changes or ["protocol"]
    if changes:
        raise NothingToReport(
            f"{a.folder} and {b.folder} are not parts of one suite: they differ in "
            f"{', '.join(changes)}"
        )
    trained_on = [*dict.fromkeys([*own.get("rewards", []), *others.get("rewards", [])])]
    rewards = a.record.rewards | b.record.rewards
    names = [*dict.fromkeys([*(name for name in trained_on if name in rewards), *rewards])]
    methods = a.record.methods | b.record.methods
    seeds = sorted({*a.record.seeds, *b.record.seeds})
    config = {
        "seeds": seeds,
        "rewards": trained_on,
        "methods": own.get("methods", {}) | others.get("methods", {}),
    }
    command = ["python", "-m", "benchmark", "merge", str(a.folder), str(b.folder)]
    return a.record.model_copy(
        update={
            "suite_config": own | config,
            "methods": methods,
            "rewards": {name: rewards[name] for name in names},
            "unscored": a.record.unscored | b.record.unscored,
            "seeds": seeds,
            "sources": b.record.sources | a.record.sources,
            "command": shlex.join(command),
            "cells": _in_order({*a.cells, *b.cells}, list(methods), [NO_REWARD, *names], a.folder),
        }
    )


def _whole(record: RunRecord) -> dict[str, Any]:
    """What both have to have in common. The path of a model is not: its weights are part of the
    protocol."""
    config = {
        name: value
        for name, value in record.suite_config.items()
        if name not in (*PARTS, *run_folder.HOW_NOT_WHAT)
    }
    if isinstance(config.get("model"), dict):
        config["model"] = {k: v for k, v in config["model"].items() if k != "name"}
    return config


def _in_order(
    cell_ids: set[str], methods: list[str], rewards: list[str], folder: Path
) -> list[str]:
    def place(cell_id: str) -> tuple[int, int, int]:
        method, reward, seed = store.parts(folder, cell_id)
        return methods.index(method), rewards.index(reward), seed

    return sorted(cell_ids, key=place)


def _choose(a: Source, b: Source, cell_id: str) -> Source:
    """Where the cell is taken from: the folder in which it has come further; raises
    ``NothingToReport`` if it is done in both, and not the same."""
    having = [source for source in (a, b) if cell_id in source.cells]
    having.sort(key=lambda source: TOLD.index(source.cells[cell_id].state))
    if len(having) == 2 and all(each.cells[cell_id].state == "done" for each in having):
        _require_same(a, b, cell_id)
    return having[0]


def _require_same(a: Source, b: Source, cell_id: str) -> None:
    keys = [source.cells[cell_id].key for source in (a, b)]
    if all(keys) and keys[0] != keys[1]:
        raise NothingToReport(
            f"cell {cell_id} was run with other code or settings in {a.folder} (key {keys[0]}) "
            f"than in {b.folder} (key {keys[1]})"
        )
    if list(_numbers(a.folder, cell_id)) != list(_numbers(b.folder, cell_id)):
        raise NothingToReport(
            f"cell {cell_id} has other numbers in {a.folder} than in {b.folder}, under the same "
            f"key: delete its folder in one of them"
        )


def _numbers(folder: Path, cell_id: str) -> Iterator[str]:
    cell = store.read_cell(folder, cell_id)
    records: list[EvaluationRecord | SamplerRecord] = [*cell.evaluations, *cell.samplers]
    for record in records:
        same = {name: MEASURED[name] for name in MEASURED if hasattr(record, name)}
        text = dump(record.model_copy(update=same | {"schema_version": 0}))
        # Sorted: runs that name their rewards in another order write them in another order.
        yield json.dumps(json.loads(text), sort_keys=True)


def _require_one_code(a: Source, b: Source) -> None:
    """Means over seeds are not to be of two programs."""
    found: dict[str, dict[str, Path]] = {}
    for source in (a, b):
        for cell_id, cell in source.cells.items():
            if cell.state == "done" and cell.status is not None and cell.status.source:
                method, *_ = store.parts(source.folder, cell_id)
                found.setdefault(method, {}).setdefault(cell.status.source, source.folder)
    for method, sources in found.items():
        if len(sources) > 1:
            folders = " and ".join(dict.fromkeys(map(str, sources.values())))
            raise NothingToReport(f"cells of {method} were computed by different code: {folders}")


def _write(out: Path, record: RunRecord, chosen: dict[str, Source]) -> None:
    part = out.with_name(f".{out.name}.part")
    if part.exists():
        shutil.rmtree(part)
    try:
        (part / "cells").mkdir(parents=True)
        for cell_id, source in chosen.items():
            folder = store.cell_folder(source.folder, cell_id)
            if folder.is_dir():
                leftovers = shutil.ignore_patterns(".*.part")
                shutil.copytree(folder, store.cell_folder(part, cell_id), ignore=leftovers)
        store.write_json(part / "run.json", record)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
