"""Two runs looked at together.

Runs of one protocol become one run, in which methods that both have are told apart by the label of
their folder, ``dag [A]`` and ``dag [B]``. Runs of different protocols stay apart: their numbers do
not compare, and no table has both in one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from results.records import RunRecord
from results.scores import BASE, BEST_OF_N, is_done, labelled
from results.store import Cell, ResultsError, Run


@dataclass(frozen=True)
class Source:
    """A run folder under its label."""

    label: str
    run: Run


@dataclass(frozen=True)
class Merged:
    """What two folders come to."""

    sources: list[Source]
    parts: list[tuple[str, Run]]
    """Label and run: one without a label, or one for each protocol."""
    notes: list[str]
    """What a reader has to know about it, in sentences."""


def merge(first: Run, second: Run) -> Merged:
    """Both runs, labelled A and B.

    Raises ResultsError if both are the same folder, or one has no cells.
    """
    if first.folder.resolve() == second.folder.resolve():
        raise ResultsError(f"{first.folder} and {second.folder} are the same folder")
    sources = [Source("A", first), Source("B", second)]
    for source in sources:
        if not source.run.cells:
            raise ResultsError(f"{source.run.folder}: the run has no cells")
    if first.record.protocol != second.record.protocol:
        note = (
            "The folders were measured by different protocols (other model, prompts, noise, or "
            "versions of rewards or encoders), so their numbers do not compare: every table and "
            "figure has one of them."
        )
        return Merged(sources, [(each.label, _prefixed(each)) for each in sources], [note])
    merged, notes = _one_run(sources)
    return Merged(sources, [("", merged)], notes)


def _prefixed(source: Source) -> Run:
    cells = {f"{source.label}/{name}": cell for name, cell in source.run.cells.items()}
    cells = {name: replace(cell, cell_id=name) for name, cell in cells.items()}
    return Run(source.run.folder, source.run.record, cells)


def _one_run(sources: list[Source]) -> tuple[Run, list[str]]:
    first, second = sources
    shared = [name for name in _methods(first.run) if name in _methods(second.run)]
    notes = _base_notes(first.run, second.run) if BASE in shared else []
    same = [BASE] if BASE in shared else []
    if BEST_OF_N in shared:
        if _settings(first.run, BEST_OF_N) == _settings(second.run, BEST_OF_N):
            same.append(BEST_OF_N)
            notes.append(
                "Best-of-n has the same settings in both: a cell that both have is shown as A's."
            )
        else:
            notes.append(
                "Best-of-n has other settings in B: rewards are normalised by A's, and methods are "
                "compared with A's at equal reward calls."
            )
    cells: dict[str, Cell] = {}
    places: dict[tuple[str, str, int], Cell] = {}
    for source in sources:
        for cell in source.run.cells.values():
            name = _name(cell.method, source.label, shared, same)
            cell_id = f"{source.label}/{cell.cell_id}"
            place = (name, cell.reward, cell.seed)
            twin = places.get(place) if cell.method in same else None
            if twin is not None:
                if not _better(cell, twin):
                    continue
                del cells[twin.cell_id]
            cells[cell_id] = places[place] = replace(cell, cell_id=cell_id, method=name)
    return Run(first.run.folder, _record(sources, shared, same, list(cells)), cells), notes


def _name(method: str, label: str, shared: list[str], same: list[str]) -> str:
    if method not in shared or method in same or (method == BEST_OF_N and label == "A"):
        return method
    return labelled(method, label)


def _record(
    sources: list[Source], shared: list[str], same: list[str], cells: list[str]
) -> RunRecord:
    first, second = (source.run.record for source in sources)
    methods = {
        _name(name, source.label, shared, same): info
        for source in sources
        for name, info in source.run.record.methods.items()
    }
    return first.model_copy(
        update={
            "methods": methods,
            "rewards": {**first.rewards, **second.rewards},
            "unscored": {**first.unscored, **second.unscored},
            "anchors": {**first.anchors, **second.anchors},
            "seeds": sorted({*first.seeds, *second.seeds}),
            "cells": cells,
        }
    )


def _methods(run: Run) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in run.cells.values()))


def _settings(run: Run, method: str) -> list[tuple[str, int]]:
    """Settings of a method's cells that have started, each once."""
    configs = [cell.config for cell in run.cells.values() if cell.method == method]
    found = {(repr(c.method_config), c.budget_images) for c in configs if c is not None}
    return sorted(found)


def _better(cell: Cell, twin: Cell) -> bool:
    """Whether a cell has numbers that its twin has not."""
    return is_done(cell) and not is_done(twin)


def _base_notes(first: Run, second: Run) -> list[str]:
    """That base serves both, and by how much its rewards differ between the folders."""
    note = "Base of one protocol is the same in both: a cell that both have is shown as A's"
    ours, theirs = ({c.seed: c for c in _bases(run)} for run in (first, second))
    distances = [
        _distance(ours[seed].picked.rewards, theirs[seed].picked.rewards)
        for seed in ours
        if seed in theirs
    ]
    distances = [value for value in distances if math.isfinite(value)]
    if not distances:
        return [f"{note}."]
    if max(distances) == 0:
        return [f"{note}. Its rewards are equal to the last bit."]
    return [f"{note}. A picture's reward differs by {max(distances):.2g} at most."]


def _bases(run: Run) -> Iterable[Cell]:
    return [cell for cell in run.cells.values() if cell.method == BASE and is_done(cell)]


def _distance(ours: dict[str, list[list[float]]], theirs: dict[str, list[list[float]]]) -> float:
    return max(
        (
            float(np.max(np.abs(np.subtract(ours[name], theirs[name]))))
            for name in ours
            if name in theirs
        ),
        default=math.nan,
    )
