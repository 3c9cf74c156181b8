"""Tables of how a run was set up: protocol, where its cells ran and how their settings differ, its
methods and rewards, and what runs each cell again."""

from __future__ import annotations

from collections.abc import Iterable

from reports import views
from reports.table_formats import Table, Value
from results import differences
from results.differences import Property
from results.store import Cell, Run


def tables(run: Run) -> list[Table]:
    """All of them, those without rows included."""
    return [
        _protocol(run),
        _properties("environment", "Where the cells ran.", differences.environments(_cells(run))),
        _properties("settings", "Settings in which cells differ.", _differing_settings(run)),
        _methods(run),
        _rewards(run),
        _reproduction(run),
    ]


def _cells(run: Run) -> Iterable[Cell]:
    return run.cells.values()


def _differing_settings(run: Run) -> list[Property]:
    return [each for each in differences.settings(_cells(run)) if each.differs]


def _protocol(run: Run) -> Table:
    rows: list[list[Value]] = [[name, str(value)] for name, value in views.protocol(run).items()]
    return Table("protocol", "What all cells have in common.", ["property", "value"], rows)


def _properties(name: str, caption: str, properties: Iterable[Property]) -> Table:
    rows: list[list[Value]] = [
        [each.name, value, len(cells), " ".join(cells) if each.differs else "all"]
        for each in properties
        for value, cells in each.values.items()
    ]
    return Table(name, caption, ["property", "value", "cells", "which"], rows)


def _methods(run: Run) -> Table:
    rows: list[list[Value]] = [
        [name, info.title, info.paper, "yes" if info.trains else "no"]
        for name, info in run.record.methods.items()
    ]
    return Table("methods", "The methods.", ["method", "title", "arXiv", "trains"], rows)


def _rewards(run: Run) -> Table:
    rows: list[list[Value]] = [
        [
            *(name, info.unit, _end(info.range[0]), _end(info.range[1])),
            *("yes" if info.differentiable else "no", info.version, info.source),
        ]
        for name, info in run.record.rewards.items()
    ]
    columns = ["reward", "unit", "from", "to", "gradient", "version", "source"]
    return Table("rewards", "The rewards.", columns, rows)


def _end(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:g}"


def _reproduction(run: Run) -> Table:
    rows: list[list[Value]] = [
        [row.cell.cell_id, row.key, row.command] for row in views.cell_rows(run)
    ]
    return Table("reproduction", "What runs a cell again.", ["cell", "key", "command"], rows)
