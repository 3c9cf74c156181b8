"""Parts of the page that need arranging before the template can write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from reports.shown import Shown
from results import numbers, reproduction, scores
from results.analysis import CrossRow, TaskRow
from results.intervals import Interval
from results.states import ORDER, words
from results.store import Cell, Run


@dataclass(frozen=True)
class CoverageRow:
    """One method: its cells by training reward; ``base`` has one group for all rewards."""

    method: str
    groups: list[list[Cell]]
    reasons: list[list[str]]
    """Why cells of the group do not apply, each reason once."""
    more: list[str]
    """What became of the cells of a group whose seeds are not shown; empty where all are."""


def coverage_rows(run: Run, shown: Shown) -> list[CoverageRow]:
    """The matrix of cells, a row a method and a group a training reward."""
    rows = []
    for method in shown.methods:
        tasks = [scores.NO_REWARD] if method == scores.BASE else shown.tasks
        every = [scores.cells_of(run, method, task) for task in tasks]
        groups = [[cell for cell in group if cell.seed in shown.seeds] for group in every]
        reasons = [_reasons(group) for group in every]
        more = [_more(group, shown) for group in every]
        rows.append(CoverageRow(method, groups, reasons, more))
    return rows


def _more(cells: list[Cell], shown: Shown) -> str:
    states = Counter(cell.status.state for cell in cells if cell.seed not in shown.seeds)
    if not states:
        return ""
    named = ", ".join(f"{states[state]} {words(state)}" for state in ORDER if state in states)
    return f"and {numbers.count(states.total(), 'seed')} more: {named}"


def _reasons(cells: list[Cell]) -> list[str]:
    refused = (cell.status for cell in cells if cell.status.state == "not_applicable")
    return list(dict.fromkeys(status.reason for status in refused))


@dataclass(frozen=True)
class Bar:
    """An interval on a shared axis, in percent of its width; None where it runs off the axis."""

    mean: float
    start: float
    end: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bars:
    """Intervals of one column drawn on one axis."""

    zero: float
    bars: list[Bar | None]


def bars(intervals: list[Interval | None]) -> Bars:
    """Where to draw each interval; the axis holds zero and all means.

    Intervals of two or three seeds can be many times as long as the differences. They are cut
    off, or the axis would squeeze all else into a point.
    """
    shown = [interval for interval in intervals if interval and interval.seeds]
    means = [0.0, *(interval.mean for interval in shown)]
    ends = [
        end for interval in shown if interval.seeds > 1 for end in (interval.low, interval.high)
    ]
    reach = max(map(abs, means)) or 1.0
    low = max(min([*means, *ends]), min(means) - reach)
    high = min(max([*means, *ends]), max(means) + reach)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return 4 + 92 * (min(max(value, low), high) - low) / span

    def bar(interval: Interval | None) -> Bar | None:
        if interval is None or not interval.seeds:
            return None
        if interval.seeds < 2:
            at = place(interval.mean)
            return Bar(at, at, at, None, None)
        caps = [place(e) if low <= e <= high else None for e in (interval.low, interval.high)]
        return Bar(place(interval.mean), place(interval.low), place(interval.high), *caps)

    return Bars(place(0.0), [bar(interval) for interval in intervals])


@dataclass(frozen=True)
class CellRow:
    """What it takes to run a cell again."""

    cell: Cell
    key: str
    command: str


def cell_rows(run: Run, most: int | None = None) -> list[CellRow]:
    """Key and command of each cell, or of the first ``most``."""
    return [
        CellRow(cell, reproduction.key(cell), reproduction.command(cell, run.record))
        for cell in islice(run.cells.values(), most)
    ]


_REFERENCE = re.compile(r'( (?:id|href|name|aria-labelledby|data-source)="#?)(?=[^"])(?!data:)')


def apart(content: str, prefix: str) -> str:
    """Markup with every id in it, and what refers to one, set apart by a prefix.

    Quotation marks in text and in scripts are escaped, so that only attributes are found.
    """
    return _REFERENCE.sub(rf"\1{prefix}", content) if prefix else content


def protocol(run: Run) -> dict[str, Any]:
    """What all cells have in common, from the first that has started."""
    config = next((cell.config for cell in run.cells.values() if cell.config), None)
    if config is None:
        return {}
    return {
        **{name.replace("_", " "): value for name, value in config.model.items()},
        "training images a cell": f"{config.budget_images:,}",
        "training prompts": len(config.train_prompts),
        "validation prompts": len(config.validation_prompts),
        "images of each validation prompt": config.validation_images_per_prompt,
        "held-out test prompts": len(config.evaluation_prompts),
        "images of each test prompt": config.images_per_prompt,
        "evaluations": config.evaluations,
        "checkpoint": config.checkpoint.replace("-", " "),
        "eta in evaluation": ", ".join(f"{eta:g}" for eta in config.etas) or "that of the model",
        "seeds": ", ".join(map(str, run.record.seeds)),
        "protocol": config.protocol,
    }


def score_decimals(rows: list[TaskRow]) -> dict[str, int]:
    """Decimals of the columns of a table of scores."""
    columns: dict[str, list[Interval]] = {
        "reward": [row.reward for row in rows],
        "gain": [row.gain.difference for row in rows if row.gain],
        "diversity": [
            change.difference for row in rows for change in row.diversity_change.values()
        ],
    }
    return {name: numbers.column_decimals(intervals) for name, intervals in columns.items()}


def best(rows: list[TaskRow]) -> str | None:
    """The method of the highest mean reward among those that have a tier."""
    tiered = [row for row in rows if row.tier]
    return max(tiered, key=lambda row: row.reward.mean).method if tiered else None


def choices(names: Iterable[object]) -> list[tuple[str, str]]:
    """Value and label of the options of a control whose labels are its values."""
    return [(str(name), str(name)) for name in names]


def cross_groups(rows: list[CrossRow]) -> dict[str, list[CrossRow]]:
    """Rows by the reward trained on, in their order."""
    groups: dict[str, list[CrossRow]] = {}
    for row in rows:
        groups.setdefault(row.task, []).append(row)
    return groups


def cross_decimals(rows: list[CrossRow]) -> dict[str, int]:
    """Decimals of each reward's column."""
    names = dict.fromkeys(name for row in rows for name in row.scores)
    return {name: numbers.column_decimals(row.scores[name] for row in rows) for name in names}


def phase_parts(row: dict[str, Any], phases: list[str]) -> list[tuple[float, float]]:
    """Start and width of each phase in percent of all."""
    seconds = [row[f"seconds: {phase}"] for phase in phases]
    total = sum(seconds) or 1.0
    parts = []
    for index, value in enumerate(seconds):
        parts.append((100 * sum(seconds[:index]) / total, 100 * value / total))
    return parts
