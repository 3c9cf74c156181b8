"""How much of a run the page shows one by one.

Of an ordinary run that is all. A page of ten thousand cells would be one that no browser opens and
nobody reads: of a run that makes a larger page than it may be, the first training rewards, methods,
seeds and cells are shown, and every section says of how many. Statistics are always of the whole
run, and the tables (``reports.tables``) have all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from results import numbers, scores
from results.store import Run

Item = TypeVar("Item")

MOST_CELLS = 1500
"""A run of more cells makes too large a page for certain: 2 kB each, without any figure."""


@dataclass(frozen=True)
class Limits:
    """The most that is shown of each; None for all."""

    tasks: int | None = None
    methods: int | None = None
    seeds: int | None = None
    cells: int | None = None


ALL = Limits()
FEWER = Limits(tasks=6, methods=24, seeds=10, cells=100)
"""What is tried first where all would be too much."""


def first_limits(runs: Sequence[Run]) -> Limits:
    """Those of the fullest page that may be small enough."""
    return ALL if sum(len(run.cells) for run in runs) <= MOST_CELLS else FEWER


def smaller(limits: Limits, runs: Sequence[Run], share: float) -> Limits | None:
    """Limits of a page whose sections take at most about ``share`` of those of a page made with
    ``limits``; None where nothing is left to leave out.

    Fewer training rewards at first; with a single one, less of everything else.
    """
    tasks = max(1, *(len(scores.tasks(run)[: limits.tasks]) for run in runs))
    fewer = max(1, min(tasks - 1, int(tasks * share)))
    if limits == ALL:
        return replace(FEWER, tasks=fewer)
    if tasks > 1:
        return replace(limits, tasks=fewer)
    halves = [max(1, (each or 1) // 2) for each in (limits.methods, limits.seeds, limits.cells)]
    less = Limits(1, *halves)
    return None if less == limits else less


@dataclass(frozen=True)
class Shown:
    """What is shown of one run, in its order."""

    limits: Limits
    tasks: list[str]
    methods: list[str]
    seeds: list[int]
    rewards: list[str]
    """Rewards that the matrix of all rewards has a column for."""
    note: str
    """What is shown of how many, a sentence; empty where all is."""

    @property
    def cells(self) -> int | None:
        """Most entries of a list of cells; None for all."""
        return self.limits.cells


def shown(run: Run, limits: Limits) -> Shown:
    """The first of everything."""
    seeds = sorted({cell.seed for cell in run.cells.values()})
    methods, tasks = scores.methods(run), scores.tasks(run)
    rewards = scores.evaluated_rewards(run)
    parts = [
        _part(tasks, limits.tasks, "training reward"),
        _part(methods, limits.methods, "method"),
        _part(seeds, limits.seeds, "seed"),
    ]
    named = [part for part in parts if part]
    note = ""
    if named:
        note = (
            f"Shown one by one: {', '.join(named)}. Every number is of the whole run; the "
            "tables that report --tables writes have all rows."
        )
    return Shown(
        limits,
        tasks[: limits.tasks],
        methods[: limits.methods],
        seeds[: limits.seeds],
        rewards[: limits.tasks],
        note,
    )


def _part(items: Sequence[object], limit: int | None, name: str) -> str:
    if limit is None or len(items) <= limit:
        return ""
    return f"the first {limit} of {numbers.count(len(items), name)}"


def spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """Of more items than ``limit`` so many, evenly over their order, both ends among them."""
    if limit is None or len(items) <= limit:
        return items
    if limit < 2:
        return items[:limit]
    last = len(items) - 1
    return [items[round(i * last / (limit - 1))] for i in range(limit)]
