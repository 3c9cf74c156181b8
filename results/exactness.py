"""The table of exact metrics: how near each method came to the distribution it declares.

Only runs on a model in closed form have it. Values are of the picked evaluation, over seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from results.intervals import Interval, t_interval
from results.records import DensityRecord
from results.scores import BASE, done, done_cells, methods, once
from results.store import Run, load_density

COLUMNS = {
    "total_variation": "TV to target",
    "total_variation_floor": "its floor",
    "divergence": "KL to target",
    "divergence_floor": "its floor",
    "base_total_variation": "TV to p_base",
    "modes_covered": "modes held",
    "reward": "reward",
    "target_reward": "target's",
    "entropy": "entropy",
    "target_entropy": "target's",
}
"""Fields of ``DensityRecord`` and the headings of their columns."""


@dataclass(frozen=True)
class DensityRow:
    """One method trained on one reward."""

    method: str
    target: str
    """Formula, with the beta where there is one."""
    modes: int
    """Modes there are to hold: of the target, or of p_base without one."""
    base_entropy: float
    """Of p_base, nats."""
    values: dict[str, Interval]
    """By field of ``DensityRecord``; fields that are None are left out."""

    @property
    def declares(self) -> bool:
        """Whether the method has a target to reach."""
        return "total_variation" in self.values

    @property
    def collapsed(self) -> bool:
        """Whether it maximises and holds less than half of the modes of p_base."""
        return not self.declares and 2 * self.values["modes_covered"].mean < self.modes


@once
def has_densities(run: Run) -> bool:
    """Whether any cell has exact metrics."""
    return any(cell.picked.density for cell in done(run))


@once
def density_table(run: Run, task: str) -> list[DensityRow]:
    """Every method that has exact metrics on a reward; empty if only ``base`` has."""
    rows = [_row(run, method, task) for method in methods(run)]
    found = [row for row in rows if row is not None]
    # ``base`` serves every reward, those included that its model has no use for.
    return found if any(row.method != BASE for row in found) else []


def _row(run: Run, method: str, task: str) -> DensityRow | None:
    records = {
        cell.seed: record
        for cell in done_cells(run, method, task)
        if (record := cell.picked.density) is not None
    }
    if not records:
        return None
    first = next(iter(records.values()))
    values = {name: _interval(records, name) for name in COLUMNS}
    return DensityRow(
        method=method,
        target=describe(first),
        modes=first.modes,
        base_entropy=first.base_entropy,
        values={name: interval for name, interval in values.items() if interval.values},
    )


def describe(record: DensityRecord) -> str:
    """The target's formula with the number of its beta."""
    if record.beta is None:
        return record.target
    return record.target.replace("beta", f"{record.beta:.4g}")


def _interval(records: dict[int, DensityRecord], name: str) -> Interval:
    values = {seed: getattr(record, name) for seed, record in records.items()}
    return t_interval({seed: float(value) for seed, value in values.items() if value is not None})


def mean_grids(run: Run, method: str, task: str) -> dict[str, np.ndarray]:
    """Cell probabilities ``[cells, cells]`` of a method's samples, mean over the seeds done, beside
    those of its target, where it has one, and of the base density."""
    cells = [load_density(cell.folder) for cell in done_cells(run, method, task)]
    cells = [grids for grids in cells if grids]
    if not cells:
        return {}
    return {**cells[0], "sample": np.mean([grids["sample"] for grids in cells], axis=0)}
