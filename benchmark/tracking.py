"""``run --tracker``: what cells write to their files, to experiment trackers too, as it appears.

The trackers are accelerate's. They read the files of the cells from the process that runs them all,
so nothing that a tracker does can touch a cell, and one that fails is let go of with a line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from benchmark.errors import UsageError, did_you_mean, shown
from benchmark.progress import CellProgress
from benchmark.workers import OnProgress
from results import store
from results.record_parts import Record
from results.records import CellConfig, EvaluationRecord, RoundRecord

NAMES = ("tensorboard", "wandb", "trackio")
PROJECT = "alignment-benchmark"
"""What it is called at trackers that have projects."""
Kind = TypeVar("Kind", bound=Record)


def check(names: Sequence[str]) -> None:
    """Raise ``UsageError`` for a tracker that is unknown or not installed."""
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--tracker: unknown tracker {name!r}; {did_you_mean(name, NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--tracker {name} needs the package {name}, which is not installed: "
                f"pip install -e '.[{name}]'"
            )


@contextmanager
def tracked(names: Sequence[str], run: Path, show: OnProgress) -> Iterator[OnProgress]:
    """``show``, which passes on to the trackers what cells of a run folder have written by then."""
    if not names:
        yield show
        return
    cells: dict[str, _Cell] = {}

    def follow(cell_id: str, progress: CellProgress) -> None:
        show(cell_id, progress)
        if cell_id not in cells:
            cells[cell_id] = _Cell(run, cell_id, list(names))
        if progress.final:  # or the trackers of all cells would stay open to the end of the run
            cells[cell_id].finish()
        else:
            cells[cell_id].catch_up()

    try:
        yield follow
    finally:
        for cell in cells.values():
            cell.finish()


@dataclass
class _Cell:
    """A cell and its trackers, which start with the first lines that it writes."""

    run: Path
    cell_id: str
    names: list[str]
    trackers: dict[str, Any] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    """File name to the bytes of it that were read."""
    reached: int = 0
    """Training images of the last round that was read."""
    held: list[EvaluationRecord] = field(default_factory=list)
    """Evaluations that were read and belong after a round that was not."""

    @property
    def folder(self) -> Path:
        return store.cell_folder(self.run, self.cell_id)

    def catch_up(self, ended: bool = False) -> None:
        """Pass on the lines that were written since the last time, by training images: Weights &
        Biases drops what comes after a later step."""
        rounds = self._new("metrics.jsonl", RoundRecord)
        # Read after the rounds, so that no evaluation before the last of them is missing.
        evaluations = self.held + self._new("evaluations.jsonl", EvaluationRecord)
        self.reached = max([self.reached, *(each.images for each in rounds)])
        ready = [each for each in evaluations if ended or each.images <= self.reached]
        self.held = evaluations[len(ready) :]
        lines = [(each.images, round_values(each)) for each in rounds]
        lines += [(each.images, evaluation_values(each)) for each in ready]
        for images, values in sorted(lines, key=lambda line: line[0]):
            self._log(values, images)

    def finish(self) -> None:
        """Pass on the rest and end the trackers; what is written later is passed on to none."""
        self.catch_up(ended=True)
        for name in list(self.trackers):
            self._try(name, lambda tracker: tracker.finish())
        self.trackers.clear()
        self.names.clear()

    def _new(self, file: str, kind: type[Kind]) -> list[Kind]:
        path = self.folder / file
        try:
            with path.open("rb") as stream:
                # A cell that is run again writes its files anew.
                start = self.read.get(file, 0) if self.read.get(file, 0) <= _size(path) else 0
                stream.seek(start)
                whole = stream.read().rpartition(b"\n")[0]
        except OSError:
            return []  # nothing was written yet
        self.read[file] = start + len(whole) + 1 if whole else start
        return [kind.model_validate_json(line) for line in whole.splitlines()]

    def _log(self, values: dict[str, float], step: int) -> None:
        if not self.trackers:
            for name in list(self.names):
                self._start(name)
        for name in list(self.trackers):
            self._try(name, lambda tracker: tracker.log(values, step=step))

    def _start(self, name: str) -> None:
        def start(_: Any) -> None:
            self.trackers[name] = _make(name, self.run, self.cell_id)

        self._try(name, start)

    def _try(self, name: str, action: Any) -> None:
        try:
            action(self.trackers.get(name))
        except Exception as error:  # a tracker's own troubles are of every kind, and not the run's
            reason = shown(str(error)) or type(error).__name__
            print(f"tracker {name} of {self.cell_id} stopped: {reason}", flush=True)
            self.trackers.pop(name, None)
            self.names.remove(name)


def round_values(record: RoundRecord) -> dict[str, float]:
    """A training round as named numbers."""
    values = {f"train/{name}": value for name, value in record.metrics.items()}
    values["cost/seconds"] = sum(record.seconds.values())
    return values | {f"cost/{name}": float(n) for name, n in record.counts.model_dump().items()}


def evaluation_values(record: EvaluationRecord) -> dict[str, float]:
    """An evaluation on the test prompts as named numbers, means over all pictures."""
    values = {f"test/{name}": _mean(scores) for name, scores in record.rewards.items()}
    values |= {f"diversity/{name}": fmean(each) for name, each in record.diversity.items()}
    values |= {f"bad_images/{name}": float(n) for name, n in record.bad_images.items()}
    if record.validation:
        values["validation/reward"] = _mean(record.validation)
    if record.path_kl:
        values["test/path_kl"] = _mean(record.path_kl)
    return values


def _make(name: str, run: Path, cell_id: str) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # trackers ask it who they are; the cells alone use the GPU
    kind, settings = LOGGER_TYPE_TO_CLASS[name], _settings(store.cell_folder(run, cell_id))
    if name == "tensorboard":
        tracker = kind(cell_id, logging_dir=run / "tensorboard")
        tracker.start()
        tracker.store_init_configuration(settings)
        return tracker
    given: dict[str, Any] = {"name": cell_id, "group": run.name, "config": settings}
    if name == "wandb":  # several cells at a time are several of its runs in one process
        given |= {"dir": str(run), "reinit": "create_new"}
    tracker = kind(PROJECT, **given)
    tracker.start()
    return tracker


def _settings(cell: Path) -> dict[str, Any]:
    """What was asked for, flat, as trackers take it."""
    config = store.read_json(cell / "config.json", CellConfig)
    given = config.model_dump(
        include={"method", "reward", "seed", "suite", "budget_images", "protocol"}
    )
    parts = {"model": config.model, config.method: config.method_config}
    nested = {f"{part}.{key}": v for part, values in parts.items() for key, v in values.items()}
    return {
        key: v for key, v in (given | nested).items() if isinstance(v, bool | int | float | str)
    }


def _mean(values: list[list[float]]) -> float:
    return fmean(value for prompt in values for value in prompt)


def _size(path: Path) -> int:
    return path.stat().st_size
