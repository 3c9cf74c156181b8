"""Diversity, drift and signs of reward hacking, arranged for the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reports.shown import Shown
from results import hacking, measuring, numbers, panel, scores
from results.analysis import CrossRow
from results.hacking import BadImages, Detector, HackingRow
from results.intervals import Interval
from results.measuring import MeasuredRow
from results.records import MeasureRecord
from results.store import Run

FULL_HEAT = 2.0
"""Change in standard deviations of the base model's images that is drawn in full colour."""


@dataclass(frozen=True)
class Heat:
    """Colour of a cell of the cross-reward matrix."""

    side: str
    """``up`` or ``down``."""
    percent: int
    """Of the full colour."""


def shifts(run: Run, rows: Iterable[CrossRow]) -> dict[tuple[str, str, str], float]:
    """By (training reward, method, scoring reward): change of the mean against base.

    In standard deviations over the base model's images, so that rewards of different units share
    one scale.
    """
    spreads = panel.spreads(run)
    return {
        (row.task, row.method, name): change.mean / spreads[name]
        for row in rows
        for name, change in row.changes.items()
        if change.seeds and spreads.get(name, 0.0) > 0
    }


def heat(run: Run, rows: Iterable[CrossRow]) -> dict[tuple[str, str, str], Heat]:
    """:func:`shifts` as colours."""
    return {
        place: Heat("up" if shift > 0 else "down", round(100 * min(1.0, abs(shift) / FULL_HEAT)))
        for place, shift in shifts(run, rows).items()
    }


@dataclass(frozen=True)
class MetricTable:
    """All metrics in one encoder: rows are (method, training reward)."""

    encoder: str
    metrics: list[MeasureRecord]
    """Those with a value in some row."""
    rows: dict[tuple[str, str], dict[str, MeasuredRow]]
    """By (method, training reward), then metric."""
    places: dict[str, int]
    """Decimals of each metric's column."""

    @property
    def heading(self) -> str:
        """What comes before the name of the encoder, or of a detector's network."""
        detected = any(record.sign_of for record in self.metrics)
        return "Of the pictures, by" if detected else "In the features of"


def metric_tables(run: Run, shown: Shown) -> list[MetricTable]:
    """One for each encoder that something was measured in."""
    records = measuring.measured_metrics(run)
    tasks = [scores.NO_REWARD, *shown.tasks]
    rows = {
        record.metric: [
            row
            for row in measuring.measured_rows(run, record.metric)
            if row.method in shown.methods and row.task in tasks
        ]
        for record in records
    }
    named = dict.fromkeys(row.encoder for found in rows.values() for row in found)
    return [_metric_table(encoder, records, rows) for encoder in named]


def _metric_table(
    encoder: str, records: list[MeasureRecord], rows: dict[str, list[MeasuredRow]]
) -> MetricTable:
    table: dict[tuple[str, str], dict[str, MeasuredRow]] = {}
    levels: dict[str, list[Interval]] = {}
    for name, found in rows.items():
        for row in found:
            if row.encoder == encoder and row.level.values:
                table.setdefault((row.method, row.task), {})[name] = row
                levels.setdefault(name, []).append(row.level)
    # Base has no value by a metric that compares with it, and would come last.
    table = dict(sorted(table.items(), key=lambda row: row[0][0] != scores.BASE))
    shown = [record for record in records if record.metric in levels]
    places = {name: numbers.column_decimals(values) for name, values in levels.items()}
    return MetricTable(encoder, shown, table, places)


def refusals(run: Run) -> dict[str, str]:
    """Metrics that refused somewhere in the run, with the first reason."""
    found: dict[str, str] = {}
    for record in measuring.measured_metrics(run):
        for row in measuring.measured_rows(run, record.metric):
            if row.refused:
                found.setdefault(record.metric, row.refused)
    return found


@dataclass(frozen=True)
class BadImageTable:
    """Evaluations with bad images, and how many images there were in all."""

    kinds: list[str]
    rows: list[BadImages]
    images: int
    evaluations: int


def bad_image_table(run: Run) -> BadImageTable:
    """All evaluations are counted; those without bad images are not listed."""
    every = hacking.bad_images(run)
    return BadImageTable(
        kinds=list(dict.fromkeys(kind for row in every for kind in row.counts)),
        rows=[row for row in every if any(row.counts.values())],
        images=sum(row.images for row in every),
        evaluations=len(every),
    )


def context(run: Run, cross: list[CrossRow], shown: Shown) -> dict[str, Any]:
    """What the sections on metrics and reward hacking show."""
    rows: list[HackingRow] = [
        row
        for row in hacking.hacking_rows(run)
        if row.method in shown.methods and row.task in shown.tasks
    ]
    names: list[Detector] = hacking.detectors(run)
    return {
        "heat": heat(run, cross),
        "full_heat": FULL_HEAT,
        "unscored": run.record.unscored,
        "metric_tables": metric_tables(run, shown),
        "refusals": refusals(run),
        "hacking": rows,
        "detectors": names,
        "bad_image_table": bad_image_table(run),
    }
