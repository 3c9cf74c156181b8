"""Golden trajectories: numbers of the first updates, compared one by one.

Statistics over seeds see large losses; these numbers see that a formula computes something else,
before training has made noise of it. They are of one cell of each method and reward: the first
images of the untrained model, and what the first rounds of training report (rewards of the images
sampled, losses, norms of gradients). On the machine that they were recorded on they repeat to the
last bit; elsewhere matrix products round otherwise and training amplifies it, so that the tolerance
is wider. ``docs/gate.md`` has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from results import store
from results.baseline import Golden
from results.gate import Comparison
from results.gate_verdicts import Verdict
from results.record_text import ResultsError
from results.scores import BASE, is_done
from results.store import Cell, Run

MEASURE = "golden trajectory"
ROUNDS = 3
"""Rounds that are recorded."""
IMAGES = 8
"""Feature values of the untrained model that are recorded."""
SMALL = 1e-3
"""Numbers below this are compared as if they were of this size."""


@dataclass(frozen=True)
class Tolerance:
    """Of relative residuals."""

    each: float
    mean: float
    """Of their signed mean: a shift to one side shows before any single one is large."""


SAME_MACHINE = Tolerance(each=1e-5, mean=2e-6)
OTHER_MACHINE = Tolerance(each=1e-2, mean=2e-3)


def hardware(cell: Cell) -> str:
    """Class of machine that a cell computed on: ``cpu``, or the name of the GPU."""
    on_gpu = cell.status.peak_gpu_allocated_bytes is not None
    return (on_gpu and cell.environment and cell.environment.gpu) or "cpu"


def machine(cell: Cell) -> str:
    """What the bits of a cell depend on: processor, threads, version of torch."""
    if cell.environment is None:
        return "not recorded"
    where = cell.environment
    torch = where.versions.get("torch", "not recorded")
    device = hardware(cell)
    processor = where.cpu if device == "cpu" else device
    return f"{processor}, {where.cpu_threads} threads, torch {torch}"


def record(run: Run) -> Golden | None:
    """The trajectories of a run; None where no cell has any."""
    cells = {cell.cell_id: cell for cell in _cells(run)}
    recorded = {cell_id: found for cell_id, cell in cells.items() if (found := numbers(cell))}
    if not recorded:
        return None
    return Golden(machine=machine(next(iter(cells.values()))), cells=recorded)


def _cells(run: Run) -> Iterator[Cell]:
    """Of each method and reward the lowest seed, if it is done."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in run.cells.values():
        known = first.get((cell.method, cell.reward))
        if known is None or cell.seed < known.seed:
            first[cell.method, cell.reward] = cell
    return (cell for cell in first.values() if is_done(cell))


def numbers(cell: Cell) -> dict[str, float]:
    """The recorded numbers of one cell by name; names of rounds begin with ``round``.

    Raises ResultsError where features of ``base`` cannot be read.
    """
    found = {
        f"round {each.round}, {name}": value
        for each in cell.rounds[:ROUNDS]
        for name, value in each.metrics.items()
        if math.isfinite(value)
    }
    if cell.method == BASE:
        for name, features in _features(cell).items():
            flat = np.asarray(features, dtype=np.float64).ravel()[:IMAGES]
            found |= {f"{name} {index}": float(value) for index, value in enumerate(flat)}
    return found


def _features(cell: Cell) -> dict[str, np.ndarray]:
    try:
        return store.load_features(store.features_path(cell.folder, cell.picked.round))
    except ResultsError:
        return {}  # a folder without its features is still a run; the numbers are missed below


def compare(golden: Golden, run: Run) -> list[Comparison]:
    """Trajectories of the cells that are done here.

    Where other seeds were run there is nothing to compare, which is told; groups that are gone, and
    cells that failed, have verdicts of their own.
    """
    present = {
        cell_id: (run.cells[cell_id], old)
        for cell_id, old in golden.cells.items()
        if cell_id in run.cells and is_done(run.cells[cell_id])
    }
    # Virtual machines of one name can have other instructions: those show in the untrained model.
    same = all(
        machine(cell) == golden.machine and (cell.method != BASE or numbers(cell) == old)
        for cell, old in present.values()
    )
    groups = {f"{cell.method}--{cell.reward}" for cell in run.cells.values()}
    absent = {cell_id: cell_id.rpartition("--")[0] for cell_id in golden.cells.keys() - run.cells}
    return [_compare(cell, old, same) for cell, old in present.values()] + [
        Comparison(group, MEASURE, Verdict.INCONCLUSIVE, f"{cell_id} was not run")
        for cell_id, group in sorted(absent.items())
        if group in groups
    ]


def _compare(cell: Cell, old: dict[str, float], same: bool) -> Comparison:
    tolerance = SAME_MACHINE if same else OTHER_MACHINE
    new, group = numbers(cell), f"{cell.method}--{cell.reward}"
    if absent := [name for name in old if name not in new]:
        detail = f"{cell.cell_id} does not report {', '.join(absent)}"
        return Comparison(group, MEASURE, Verdict.MISSING, detail)
    residuals = {name: (new[name] - value) / max(abs(value), SMALL) for name, value in old.items()}
    worst = max(residuals, key=lambda name: abs(residuals[name]))
    mean = math.fsum(residuals.values()) / len(residuals)
    kept = abs(residuals[worst]) <= tolerance.each and abs(mean) <= tolerance.mean
    detail = (
        f"{cell.cell_id}, {len(residuals)} numbers on {'the same' if same else 'another'} machine: "
        f"largest residual {residuals[worst]:.1e} ({worst}; at most {tolerance.each:g}), "
        f"mean {mean:.1e} (at most {tolerance.mean:g})"
    )
    return Comparison(group, MEASURE, Verdict.PASS if kept else Verdict.REGRESSION, detail)
