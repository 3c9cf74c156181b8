"""``benchmark measure``: metrics of a finished run, from the features and pictures it stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from benchmark import detectors
from benchmark.detectors import Detector
from benchmark.errors import NothingToReport, UsageError, did_you_mean
from benchmark.terminal import print_table
from results import detections, measuring, metrics, numbers, store
from results.records import MeasureRecord
from results.scores import NO_REWARD
from results.store import ResultsError, Run

ALL = "all"


def measure(metric: str, folder: Path) -> None:
    """Measure every finished cell of a run, write what was found, and print it.

    ``metric`` is a name or ``all``; detectors, which take long, are measured by name alone. Raises
    ``UsageError`` for an unknown metric, a folder that cannot be written, and a detector that is
    not here, ``NothingToReport`` for a folder without a run, features or pictures, and where every
    value of the metric asked for is refused.
    """
    known, looked_for = metrics.registry(), detectors.registry()
    if metric in looked_for:
        _detect(looked_for[metric], folder)
        return
    if metric != ALL and metric not in known:
        names = [*known, *looked_for, ALL]
        raise UsageError(f"unknown metric {metric!r}; {did_you_mean(metric, names)}")
    names = list(known) if metric == ALL else [metric]
    run = measure_run(folder, names)
    if not measuring.measurable(run):
        raise NothingToReport(f"{folder}: no cell is done and has stored features")
    refusals = refused(run, names)
    if any(row.level.values for name in names for row in measuring.measured_rows(run, name)):
        print_table(_table(run, names))
    elif refusals:
        raise NothingToReport("; ".join(dict.fromkeys(refusals.values())))
    else:
        raise NothingToReport(f"{folder}: {metric} compares with base, and no other cell is done")
    for name, reason in refusals.items():
        print(f"{name}: refused: {reason}")


def _detect(kind: type[Detector], folder: Path) -> None:
    """Look at the stored pictures of every finished cell. Errors as of :func:`measure`."""
    if reason := kind.unavailable():
        raise UsageError(f"{kind.name} {reason}")
    with _readable(folder):
        run = store.read_run(folder)
        if not detections.with_pictures(run):
            raise NothingToReport(f"{folder}: no cell is done and has its pictures")
    try:
        detector = kind()
    except (OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    declared = MeasureRecord(
        metric=kind.name,
        version=detector.version,
        title=kind.title,
        unit=kind.unit,
        direction="lower",
        needs_base=False,
        values=[],
        sign_of=kind.sign_of,
    )
    with _readable(folder):
        detections.detect_and_write(run, declared, kind.network, detector.values)
        run = store.read_run(folder)
    print_table(_table(run, [kind.name]))


def measure_run(folder: Path, names: Sequence[str]) -> Run:
    """Measure and write; the run as it is then. Errors as of :func:`measure`."""
    with _readable(folder):
        run = store.read_run(folder)
        for name in names:
            measuring.measure_and_write(run, metrics.load(name))
        return store.read_run(folder)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Errors of reading and writing a run as those of the command."""
    try:
        yield
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error


def is_cut_short(folder: Path, cell_ids: Sequence[str]) -> bool:
    """Whether a run was stopped after its cells were done and before the last metric of all was
    written."""
    last = list(metrics.registry())[-1]
    cells = [store.cell_folder(folder, cell_id) for cell_id in cell_ids]
    return any(
        (cell / "features").is_dir() and not store.measure_path(cell, last).exists()
        for cell in cells
    )


def refused(run: Run, names: Sequence[str]) -> dict[str, str]:
    """Metrics that have a refusal in the run, each with the first reason."""
    reasons: dict[str, str] = {}
    for name in names:
        for row in measuring.measured_rows(run, name):
            if row.refused:
                reasons.setdefault(name, row.refused)
    return reasons


def _table(run: Run, names: Sequence[str]) -> Table:
    title = "picked evaluation, mean over seeds with its 95 % interval"
    table = Table(title=f"{title}, protocol {run.record.protocol}")
    for heading in ("metric", "encoder", "method", "trained on", "seeds", "value", "against base"):
        table.add_column(heading)
    for name in names:
        for row in measuring.measured_rows(run, name):
            if row.level.values:
                level = f"{numbers.mean(row.level)} {numbers.bounds(row.level)}".rstrip()
                change = numbers.difference(row.change) if row.change else "-"
                task = "-" if row.task == NO_REWARD else row.task
                seeds = str(row.level.seeds)
                table.add_row(name, row.encoder, row.method, task, seeds, level, change)
    return table
