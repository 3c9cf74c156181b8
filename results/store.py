"""Reading and writing run folders.

Files appear whole or not at all: they are written under a temporary name in the same folder
and moved into place. Logs of records (``*.jsonl``) are appended to, and a line counts only once
its newline is there, so a process killed while writing leaves a readable log behind.

    run = read_run(Path("runs/emoji-1"))
    run.cells["dag--style--s0"].picked.rewards["style"]
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from results import condensed
from results.checkpoints import pick
from results.record_text import RecordType, ResultsError, check_version, dump, one_line, parse
from results.records import (
    SCHEMA_VERSION,
    CellConfig,
    Environment,
    EvaluationRecord,
    MeasureRecord,
    Record,
    RoundRecord,
    RunRecord,
    SamplerRecord,
    StatusRecord,
)

NO_REWARD = "none"
"""The training reward of ``base``, which does not train and serves for all."""

CELL_ID = re.compile(r"(?P<method>[\w.-]+?)--(?P<reward>[\w.-]+?)--s(?P<seed>\d+)")


@dataclass(frozen=True)
class Cell:
    """One cell of a run, as far as it has come.

    ``config`` and ``environment`` are None until the cell has started; ``rounds`` and
    ``evaluations`` are in the order in which they were written. ``measures`` are by the name of
    their metric.
    """

    cell_id: str
    method: str
    reward: str
    seed: int
    folder: Path
    status: StatusRecord
    config: CellConfig | None
    environment: Environment | None
    rounds: list[RoundRecord]
    evaluations: list[EvaluationRecord]
    measures: dict[str, MeasureRecord] = field(default_factory=dict)
    samplers: list[SamplerRecord] = field(default_factory=list)

    @property
    def picked(self) -> EvaluationRecord:
        """The evaluation that is reported: of those made so far, of which there must be one, that
        which the rule of the protocol picks by their validation scores."""
        rule = self.config.checkpoint if self.config else "last"
        return self.evaluations[pick(rule, [record.validation for record in self.evaluations])]


@dataclass(frozen=True)
class Run:
    """A run folder in memory; ``cells`` are in matrix order.

    Raises ResultsError for a cell of another protocol than the run's, so that nothing computed
    from a run puts numbers of two protocols together.
    """

    folder: Path
    record: RunRecord
    cells: dict[str, Cell]
    computed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was computed of it, see ``results.scores.once``; the cells do not change."""

    @cached_property
    def groups(self) -> dict[tuple[str, str], list[Cell]]:
        """Method and reward to the cells of all seeds, in matrix order."""
        found: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells.values():
            found.setdefault((cell.method, cell.reward), []).append(cell)
        return found

    def __post_init__(self) -> None:
        for cell in self.cells.values():
            if cell.config is not None and cell.config.protocol != self.record.protocol:
                raise ResultsError(
                    f"{cell.folder}: measured by protocol {cell.config.protocol}, the run by "
                    f"{self.record.protocol}: not comparable"
                )


# Paths


def cell_folder(run_folder: Path, cell_id: str) -> Path:
    """Folder of one cell."""
    return run_folder / "cells" / cell_id


def sample_path(folder: Path, prompt: int, image: int) -> Path:
    """Picture of a cell's picked evaluation: ``samples/<prompt index>-<image index>.png``."""
    return folder / "samples" / f"{prompt}-{image}.png"


def features_path(folder: Path, round_: int) -> Path:
    """Features of all images of a cell's evaluation after a training round."""
    return folder / "features" / f"{round_}.safetensors"


def checkpoints_folder(folder: Path) -> Path:
    """What a cell that was cut short goes on from, until it is done."""
    return folder / "checkpoints"


def measure_path(folder: Path, metric: str) -> Path:
    """What a metric gave for a cell."""
    return folder / "measures" / f"{metric}.json"


# Writing; every function here raises OSError where the disk does


def write_bytes(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file that is there whole or not at all; parents are made.

    ``durable``: so also after a power failure; it is on the disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        # mkstemp makes files that only the owner can read.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, record: Record) -> None:
    """Write one record as indented JSON."""
    write_bytes(path, (dump(record, indent=2) + "\n").encode())


def append_jsonl(path: Path, record: Record) -> None:
    """Append one record as a line; an unfinished line left by a killed process is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as stream:
        stream.seek(0)
        content = stream.read()
        # Without this the new line would be glued to the unfinished one.
        stream.truncate(content.rfind(b"\n") + 1)
        stream.write((dump(record) + "\n").encode())


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Replace a log, as a resumed cell does with rounds that are run again."""
    write_bytes(path, "".join(dump(record) + "\n" for record in records).encode())


def save_features(path: Path, features: Mapping[str, Any]) -> None:
    """Write encoder name -> features ``[prompts, images, width]`` as fp32 safetensors.

    In fp32, so that a metric computed from the file is the one computed from the images: half
    the digits would move distances of near-duplicates.
    """
    arrays = {
        name: np.ascontiguousarray(values, dtype=np.float32) for name, values in features.items()
    }
    metadata = {"schema_version": str(SCHEMA_VERSION)}
    write_bytes(path, safetensors.numpy.save(arrays, metadata=metadata))


def save_density(path: Path, grids: Mapping[str, Any]) -> None:
    """Write cell probabilities ``[cells, cells]`` by name as fp32 safetensors."""
    save_features(path, grids)


# Reading; every function here raises ResultsError


def read_json(path: Path, kind: type[RecordType]) -> RecordType:
    """Read one record."""
    return parse(path, _text(path), kind)


def read_jsonl(path: Path, kind: type[RecordType]) -> list[RecordType]:
    """Read a log; a last line without its newline is one that was being written, and left out."""
    lines = _text(path).split("\n")[:-1]
    return [parse(path, line, kind, f" line {i}") for i, line in enumerate(lines, 1)]


def load_features(path: Path) -> dict[str, np.ndarray]:
    """Read what ``save_features`` wrote, also before it named its schema version."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            version = (file.metadata() or {}).get("schema_version", str(SCHEMA_VERSION))
            check_version(path, int(version) if version.isdecimal() else version)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{path}: cannot be read: {one_line(error)}") from error


def load_density(folder: Path) -> dict[str, np.ndarray]:
    """The grids of a cell ("sample", "base" and, where there is one, "target"); empty if the model
    is not one in closed form."""
    path = folder / "density.safetensors"
    return load_features(path) if path.exists() else {}


def read_run(folder: Path, condense: bool = False) -> Run:
    """Read a run, its unfinished cells included.

    With ``condense`` the training rounds and the values of single images are left out
    (``results.condensed``), but for the images of the untrained model, which runs once a seed:
    all that a report needs, in memory for ten thousand cells.

    Raises ResultsError for a folder that holds no run, a damaged file, files of another schema
    version, and a cell measured by another protocol than the run's.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ResultsError(f"{folder}: not a results folder (there is no run.json in it)")
    record = read_json(path, RunRecord)
    pool = condensed.Pool() if condense else None
    return Run(folder, record, {name: read_cell(folder, name, pool) for name in record.cells})


def read_cell(run_folder: Path, cell_id: str, pool: condensed.Pool | None = None) -> Cell:
    """Read one cell; without a status it is running if it has a config, else pending.

    With a ``pool``, of which it takes what other cells have alike, it is condensed.
    """
    method, reward, seed = parts(run_folder, cell_id)
    folder = cell_folder(run_folder, cell_id)
    config = _if_there(folder / "config.json", CellConfig)
    status = _if_there(folder / "status.json", StatusRecord)
    if status is None:
        status = StatusRecord(state="pending" if config is None else "running")
    cell = Cell(
        cell_id=cell_id,
        method=method,
        reward=reward,
        seed=seed,
        folder=folder,
        status=status,
        config=config,
        environment=_if_there(folder / "environment.json", Environment),
        rounds=_log(folder / "metrics.jsonl", RoundRecord) if pool is None else [],
        evaluations=_log(folder / "evaluations.jsonl", EvaluationRecord),
        samplers=_log(folder / "samplers.jsonl", SamplerRecord),
        measures={
            path.stem: read_json(path, MeasureRecord)
            for path in sorted((folder / "measures").glob("[!.]*.json"))
        },
    )
    return cell if pool is None else _condensed(cell, pool)


def whole(cell: Cell) -> Cell:
    """A cell with the values of its single images, read again where they were left out."""
    if not condensed.is_condensed(cell.evaluations):
        return cell
    return replace(cell, evaluations=_log(cell.folder / "evaluations.jsonl", EvaluationRecord))


def _condensed(cell: Cell, pool: condensed.Pool) -> Cell:
    round_ = cell.picked.round if cell.evaluations else None
    evaluations = cell.evaluations
    if cell.reward != NO_REWARD:
        evaluations = [condensed.condense(record, cell.reward) for record in evaluations]
    return replace(
        cell,
        config=cell.config and pool.config(cell.config),
        environment=cell.environment and pool.one(cell.environment),
        evaluations=evaluations,
        samplers=[condensed.condense_sampler(record) for record in cell.samplers],
        measures={
            name: condensed.condense_measure(record, round_)
            for name, record in cell.measures.items()
        },
    )


def parts(run_folder: Path, cell_id: str) -> tuple[str, str, int]:
    """Method, reward and seed of a cell; raises ResultsError for an id that has not all three."""
    match = CELL_ID.fullmatch(cell_id)
    if match is None:
        raise ResultsError(
            f"{run_folder / 'run.json'}: cell id {cell_id!r} is not <method>--<reward>--s<seed>"
        )
    return match["method"], match["reward"], int(match["seed"])


def _if_there(path: Path, kind: type[RecordType]) -> RecordType | None:
    return read_json(path, kind) if path.exists() else None


def _log(path: Path, kind: type[RecordType]) -> list[RecordType]:
    return read_jsonl(path, kind) if path.exists() else []


def _text(path: Path) -> str:
    try:
        # A killed writer can leave half of a character: that is in the unfinished line.
        return path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {one_line(error)}") from error
