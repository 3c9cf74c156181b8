"""Metrics of a whole run: computed from stored features, written beside the evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from results import store
from results.condensed import CondensedMeasure
from results.intervals import Interval, paired_difference, t_interval
from results.metrics.interface import Metric, Refused, require_comparable
from results.records import MeasuredValue, MeasureRecord
from results.scores import BASE, NO_REWARD, done, done_cells, methods, once, tasks
from results.store import Cell, Run

Features = dict[str, np.ndarray]
"""Encoder name to ``[prompts, images, width]``."""


def measure_cell(run: Run, cell: Cell, metric: Metric) -> MeasureRecord:
    """A metric of every evaluation of a cell in every encoder, refusals among the values.

    Metrics that compare with base leave ``base`` itself out. Raises ``ResultsError`` for features
    that cannot be read.
    """
    reference = _base_features(run, cell) if metric.needs_base else {}
    values = []
    for evaluation in [] if metric.needs_base and cell.method == BASE else cell.evaluations:
        path = store.features_path(cell.folder, evaluation.round)
        for encoder, features in store.load_features(path).items():
            values.append(
                _measured(metric, evaluation.round, encoder, features, reference.get(encoder))
            )
    return MeasureRecord(
        metric=metric.name,
        version=metric.version,
        title=metric.title,
        unit=metric.unit,
        direction=metric.direction,
        needs_base=metric.needs_base,
        values=values,
    )


def _base_features(run: Run, cell: Cell) -> Features:
    """Those of ``base`` of the same seed; empty while it is not done."""
    for base in done_cells(run, BASE, NO_REWARD):
        if base.seed == cell.seed:
            return store.load_features(store.features_path(base.folder, base.picked.round))
    return {}


def _measured(
    metric: Metric, round_: int, encoder: str, features: np.ndarray, base: np.ndarray | None
) -> MeasuredValue:
    try:
        found = metric.measure(features, base)
    except Refused as refusal:
        return MeasuredValue(round=round_, encoder=encoder, value=None, refused=str(refusal))
    return MeasuredValue(
        round=round_,
        encoder=encoder,
        value=found.value,
        conditions=found.conditions,
        details=found.details,
        per_prompt=found.per_prompt,
    )


def measurable(run: Run) -> list[Cell]:
    """Cells that are done and whose features were stored."""
    return [
        cell
        for cell in done(run)
        if all(store.features_path(cell.folder, e.round).is_file() for e in cell.evaluations)
    ]


@dataclass(frozen=True)
class MeasuredRow:
    """A metric of one method trained on one reward, in one encoder, at the picked evaluation."""

    method: str
    task: str
    """Reward trained on; ``none`` for ``base``."""
    encoder: str
    level: Interval
    """Over seeds."""
    change: Interval | None
    """Minus that of ``base``, paired by seed; None for ``base`` itself and for metrics that
    compare with it by themselves."""
    refused: str
    """Why there is no value, or why the seeds' values do not compare."""


@once
def measured_rows(run: Run, metric: str) -> list[MeasuredRow]:
    """A row for each method, training reward and encoder that ``metric`` was measured for."""
    others = [method for method in methods(run) if method != BASE]
    pairs = [(BASE, NO_REWARD), *((method, task) for task in tasks(run) for method in others)]
    base = done_cells(run, BASE, NO_REWARD)
    rows = []
    for method, task in pairs:
        cells = done_cells(run, method, task)
        for encoder in _measured_encoders(cells, metric):
            rows.append(_row(method, task, encoder, cells, base, metric))
    return rows


@once
def measured_metrics(run: Run) -> list[MeasureRecord]:
    """One record of each metric that a cell of the run was measured by, for what it declares."""
    found = {name: record for cell in done(run) for name, record in cell.measures.items()}
    return [found[name] for name in sorted(found)]


def measured_by(run: Run, metric: str) -> list[str]:
    """Encoders, or networks of a detector, that a metric has values by."""
    return _measured_encoders(done(run), metric)


def final_measure(cell: Cell, metric: str, encoder: str) -> MeasuredValue | None:
    """A metric at a cell's picked evaluation."""
    record, picked = cell.measures.get(metric), cell.picked.round
    values = record.values if record else []
    return next((v for v in values if (v.round, v.encoder) == (picked, encoder)), None)


def value_at(cell: Cell, round_: int, metric: str, encoder: str) -> float | None:
    """A metric at the evaluation after a round; None where it has no value there."""
    record = cell.measures.get(metric)
    if isinstance(record, CondensedMeasure):
        return record.numbers.get(encoder, {}).get(round_)
    values = record.values if record else []
    return next((v.value for v in values if (v.round, v.encoder) == (round_, encoder)), None)


def _measured_encoders(cells: list[Cell], metric: str) -> list[str]:
    records = [cell.measures[metric] for cell in cells if metric in cell.measures]
    return list(dict.fromkeys(value.encoder for record in records for value in record.values))


def _row(
    method: str, task: str, encoder: str, cells: list[Cell], base: list[Cell], metric: str
) -> MeasuredRow:
    found = _by_seed(cells, metric, encoder)
    reference = _by_seed(base, metric, encoder) if method != BASE else {}
    refused = next((value.refused for value in found.values() if value.refused), "")
    try:
        usable = [v for v in (*found.values(), *reference.values()) if v.value is not None]
        require_comparable(metric, [value.conditions for value in usable])
    except Refused as refusal:
        refused, found, reference = str(refusal), {}, {}
    values, base_values = _numbers(found), _numbers(reference)
    change = paired_difference(values, base_values) if base_values else None
    return MeasuredRow(method, task, encoder, t_interval(values), change, refused)


def _by_seed(cells: list[Cell], metric: str, encoder: str) -> dict[int, MeasuredValue]:
    found = {cell.seed: final_measure(cell, metric, encoder) for cell in cells}
    return {seed: value for seed, value in found.items() if value is not None}


def _numbers(found: dict[int, MeasuredValue]) -> dict[int, float]:
    return {seed: value.value for seed, value in found.items() if value.value is not None}


def measure_and_write(run: Run, metric: Metric) -> list[MeasureRecord]:
    """Measure every cell that can be, and write each record whole; raises ``OSError`` and
    ``ResultsError``."""
    records = []
    for cell in measurable(run):
        record = measure_cell(run, cell, metric)
        store.write_json(store.measure_path(cell.folder, metric.name), record)
        records.append(record)
    return records
