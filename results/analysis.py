"""The tables of a run: final rewards and diversity over seeds, cross rewards, coverage, cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from results import costs
from results.comparisons import Family, families
from results.intervals import Interval, paired_difference, t_interval
from results.paired import Comparison
from results.records import Counts
from results.scores import (
    BASE,
    NO_REWARD,
    cells_of,
    done,
    done_cells,
    evaluated_rewards,
    final_scores,
    methods,
    once,
    reward_calls,
    tasks,
)
from results.states import ORDER
from results.store import Cell, Run


@dataclass(frozen=True)
class TaskRow:
    """One method trained on one reward; intervals are over the seeds that are done."""

    method: str
    state: str
    """The first of ``states.ORDER`` that any of the cells is in."""
    reason: str
    """Why the first of the cells that stopped short did."""
    done: int
    cells: int
    reward: Interval
    gain: Comparison | None
    """Reward against that of ``base``, of the family of all pairs; None for ``base`` itself."""
    tier: int | None
    """1 for methods not separable from the best in reward; None with fewer than two seeds."""
    diversity: dict[str, Interval]
    """By encoder."""
    diversity_change: dict[str, Comparison]
    """Diversity against that of ``base``, by encoder; empty for ``base`` itself."""
    reward_calls: float
    """Of the whole training, mean over seeds; NaN while no cell is done."""
    bad_images: dict[str, int]
    """Kinds of bad images in the picked evaluations; empty if there was none."""


@once
def task_table(run: Run, task: str) -> list[TaskRow]:
    """Every method that has cells on one reward, the controls first."""
    reward, *diversity = families(run, task)
    found = [method for method in methods(run) if cells_of(run, method, task)]
    return [_task_row(run, method, reward, diversity) for method in found]


def _task_row(run: Run, method: str, reward: Family, diversity: list[Family]) -> TaskRow:
    task = reward.task
    cells = cells_of(run, method, task)
    finished = done_cells(run, method, task)
    changes = {family.name: family.against(BASE).get(method) for family in diversity}
    return TaskRow(
        method=method,
        state=_row_state(cells),
        reason=next((cell.status.reason for cell in cells if cell.status.reason), ""),
        done=len(finished),
        cells=len(cells),
        reward=t_interval(final_scores(run, method, task, "reward", task)),
        gain=reward.against(BASE).get(method),
        tier=reward.tiers.get(method),
        diversity={
            family.name: t_interval(final_scores(run, method, task, "diversity", family.name))
            for family in diversity
        },
        diversity_change={name: change for name, change in changes.items() if change},
        reward_calls=_mean([reward_calls(cell.evaluations[-1].counts) for cell in finished]),
        bad_images=_bad_images(finished),
    )


def _row_state(cells: list[Cell]) -> str:
    states = {cell.status.state for cell in cells}
    return next((state for state in ORDER if state in states), "pending")


def _bad_images(cells: list[Cell]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for cell in cells:
        total.update(cell.picked.bad_images)
    return {kind: count for kind, count in total.items() if count}


def _mean(values: list[int] | list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True)
class CrossRow:
    """One method trained on one reward, scored by every reward."""

    method: str
    task: str
    scores: dict[str, Interval]
    changes: dict[str, Interval]
    """Differences to ``base``, paired by seed and not adjusted; empty for ``base`` itself."""


def cross_rewards(
    run: Run, trained_on: Sequence[str] | None = None, scored_by: Sequence[str] | None = None
) -> list[CrossRow]:
    """A row for ``base``, then one for each method of each training reward that is done.

    Of the training rewards ``trained_on`` and the rewards ``scored_by``, or of all.
    """
    others = [method for method in methods(run) if method != BASE]
    chosen = tasks(run) if trained_on is None else trained_on
    names = evaluated_rewards(run) if scored_by is None else scored_by
    pairs = [(BASE, NO_REWARD), *((method, task) for task in chosen for method in others)]
    rows = []
    for method, task in pairs:
        scores = {}
        changes = {}
        for name in names:
            values = final_scores(run, method, task, "reward", name)
            scores[name] = t_interval(values)
            if method != BASE:
                base = final_scores(run, BASE, task, "reward", name)
                changes[name] = paired_difference(values, base)
        if any(level.values for level in scores.values()):
            rows.append(CrossRow(method, task, scores, changes))
    return rows


def coverage(run: Run) -> pd.DataFrame:
    """State of every cell: protocol, cell_id, method, task, seed, state, reason, seconds."""
    return pd.DataFrame(
        [
            {
                "protocol": run.record.protocol,
                "cell_id": cell.cell_id,
                "method": cell.method,
                "task": cell.reward,
                "seed": cell.seed,
                "state": cell.status.state,
                "reason": cell.status.reason,
                "seconds": cell.status.seconds,
            }
            for cell in run.cells.values()
        ],
        columns=["protocol", "cell_id", "method", "task", "seed", "state", "reason", "seconds"],
    )


def throughput(run: Run) -> pd.DataFrame:
    """What a cell cost, mean over the seeds that are done.

    One row for each method, training reward and machine: times of different machines are never
    averaged. Columns: protocol, method, task, machine, seeds, sampling_images_per_second
    (evaluation), training_images_per_second, seconds (whole cell), ``seconds: <phase>`` for every
    phase, the fields of ``Counts``, peak_memory_bytes (the highest of the seeds), and
    ``costs.columns``.
    """
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in done(run):
        groups.setdefault((cell.method, cell.reward, machine(cell)), []).append(cell)
    rows = []
    for (method, task, where), cells in groups.items():
        row: dict[str, object] = {"protocol": run.record.protocol, "method": method}
        row |= {"task": task, "machine": where, "seeds": len(cells)}
        row |= {name: _mean([speed[name] for speed in map(_speeds, cells)]) for name in SPEEDS}
        for phase in phases(run):
            seconds = [cell.status.seconds_by_phase.get(phase, 0.0) for cell in cells]
            row[f"seconds: {phase}"] = _mean(seconds)
        for name in Counts.model_fields:
            row[name] = _mean([getattr(cell.status.counts, name) for cell in cells])
        row["peak_memory_bytes"] = max(cell.status.peak_memory_bytes for cell in cells)
        row |= costs.columns(cells)
        rows.append(row)
    return pd.DataFrame(rows)


SPEEDS = ("sampling_images_per_second", "training_images_per_second", "seconds")


def _speeds(cell: Cell) -> dict[str, float]:
    last = cell.evaluations[-1]
    trained = last.images / last.training_seconds if last.training_seconds else math.nan
    return {
        "sampling_images_per_second": _mean(
            [record.sampling_images_per_second for record in cell.evaluations]
        ),
        "training_images_per_second": trained,
        "seconds": cell.status.seconds,
    }


@once
def phases(run: Run) -> list[str]:
    """Phases that time was spent in, in the order in which they are shown."""
    return costs.in_order(phase for cell in done(run) for phase in cell.status.seconds_by_phase)


def machine(cell: Cell) -> str:
    """What a cell ran on, in words."""
    if cell.environment is None:
        return "unknown"
    where = cell.environment
    return where.gpu or f"{where.cpu}, {where.cpu_threads} threads"
