"""Every metric over the distance from the untrained model, and where the panel turns.

Curves over the distance (``results.costs``) compare methods where they have gone equally far. Where
no path KL was measured, as for a model in closed form, the checkpoints have no distance, and only
their training images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from results import costs
from results.curves import from_untrained
from results.hacking import Value, detectors, measured_value
from results.intervals import Interval, of_reached, t_interval
from results.measuring import measured_by, measured_metrics
from results.panel import panel, panel_rewards, turn
from results.records import EvaluationRecord
from results.scores import (
    BASE,
    NO_REWARD,
    cells_of,
    done_cells,
    evaluated_rewards,
    is_control,
    measure,
    methods,
    once,
)
from results.store import Cell, Run

PANEL = "panel of held-out rewards"
"""Metric: see ``results.panel``."""
REWARD = "reward: "
"""What the name of a reward has before it where it is a metric."""
UNTRAINED = {"kid": 0.0, "paired_distance": 0.0, "coverage": 1.0, "precision": 1.0}
"""Metrics that compare with base to their value of base itself, which is not measured."""


@dataclass(frozen=True)
class Checkpoint:
    """One evaluation of a seed; of the untrained model at no distance."""

    round: int
    images: float
    """Training images so far."""
    distance: float
    """Root of the path KL from base in nats; NaN where it was not measured."""
    values: dict[str, float]
    """By metric, mean over prompts and images; NaN where there is none."""


@dataclass(frozen=True)
class MeanCheckpoint:
    """A round that all seeds have reached: means over seeds, and each metric's interval."""

    round: int
    images: float
    distance: float
    values: dict[str, Interval]


@dataclass(frozen=True)
class MetricCurves:
    """One method trained on one reward, along its checkpoints."""

    method: str
    task: str
    seeds: dict[int, list[Checkpoint]]
    """In training order, from the untrained model on where there is one."""

    @property
    def turns(self) -> dict[int, int | None]:
        """Seed to the index of the checkpoint at which its panel turns, None for no turn yet; of
        the seeds whose panel has a value at every checkpoint."""
        panels = {
            seed: [point.values[PANEL] for point in points] for seed, points in self.seeds.items()
        }
        return {seed: turn(values) for seed, values in panels.items() if np.isfinite(values).all()}

    @property
    def means(self) -> list[MeanCheckpoint]:
        """At the rounds that all seeds have reached: a mean over fewer would make a step in the
        curve that no seed took."""
        by_round: dict[int, dict[int, Checkpoint]] = {}
        for seed, points in self.seeds.items():
            for point in points:
                by_round.setdefault(point.round, {})[seed] = point
        whole = {n: found for n, found in by_round.items() if len(found) == len(self.seeds)}
        return [_mean_checkpoint(number, found) for number, found in sorted(whole.items())]

    def gain(self, point: Checkpoint, seed: int) -> float:
        """Of a checkpoint of a seed, in the reward trained on, against the seed's first."""
        name = REWARD + self.task
        return point.values[name] - self.seeds[seed][0].values[name]


def _mean_checkpoint(number: int, found: dict[int, Checkpoint]) -> MeanCheckpoint:
    points = list(found.values())
    return MeanCheckpoint(
        round=number,
        images=float(np.mean([point.images for point in points])),
        distance=float(np.mean([point.distance for point in points])),
        values={
            name: t_interval({seed: point.values[name] for seed, point in found.items()})
            for name in points[0].values
        },
    )


@dataclass(frozen=True)
class _Followed:
    """What has a value at every evaluation."""

    name: str
    value: Value
    untrained: float | None
    """Value of the untrained model where it is so by definition."""


@once
def metrics(run: Run) -> list[str]:
    """The panel, every reward, every detector that looks at all evaluations, and every other
    metric that was measured; prompt fidelity is that of its reward."""
    rewards = [REWARD + name for name in evaluated_rewards(run)]
    return [PANEL, *rewards, *(each.name for each in _followed(run))]


@once
def _followed(run: Run) -> list[_Followed]:
    watched = [
        each
        for each in detectors(run)
        if not each.picked_alone and not each.name.startswith("prompt fidelity")
    ]
    found = [_Followed(each.name, each.value, each.untrained) for each in watched]
    known = {each.measure for each in watched} | {"pairwise_distance"}  # diversity within a prompt
    for record in measured_metrics(run):
        if not record.sign_of and record.metric not in known:
            untrained = UNTRAINED.get(record.metric)
            found += [
                _Followed(
                    f"{record.title}, {encoder}", measured_value(record.metric, encoder), untrained
                )
                for encoder in measured_by(run, record.metric)
            ]
    return found


@once
def metric_curves(run: Run, task: str) -> list[MetricCurves]:
    """Of every method trained on ``task`` with a cell that is done."""
    return [
        MetricCurves(method, task, {cell.seed: _checkpoints(run, cell, task) for cell in cells})
        for method in methods(run)
        if not is_control(method) and (cells := done_cells(run, method, task))
    ]


def _checkpoints(run: Run, cell: Cell, task: str) -> list[Checkpoint]:
    records = from_untrained(run, cell)
    owners = [cell] * len(cell.evaluations)
    if len(records) > len(owners):  # it starts at that of base
        owners = [_base_cells(run)[cell.seed], *owners]
    return [
        Checkpoint(
            round=record.round,
            images=record.images,
            distance=costs.of(record)[costs.DISTANCE],
            values=_values(run, owner, task, record, records[0]),
        )
        for owner, record in zip(owners, records, strict=True)
    ]


@once
def _base_cells(run: Run) -> dict[int, Cell]:
    """By seed, the one that curves start at."""
    return {cell.seed: cell for cell in reversed(done_cells(run, BASE, NO_REWARD))}


def _values(
    run: Run, cell: Cell, task: str, record: EvaluationRecord, start: EvaluationRecord
) -> dict[str, float]:
    values: dict[str, float | None] = {
        PANEL: panel(run, task, record, start) if start.round == 0 else math.nan
    }
    for name in evaluated_rewards(run):
        values[REWARD + name] = measure(record, "reward", name)
    for each in _followed(run):
        known = each.untrained if record.round == 0 else None
        values[each.name] = each.value(cell, record, task) if known is None else known
    return {name: math.nan if value is None else value for name, value in values.items()}


@dataclass(frozen=True)
class TurnRow:
    """Where the panel of one method trained on one reward turns; a seed's own turn first, then
    intervals over the seeds that turn, without ends unless all do."""

    method: str
    task: str
    rewards: list[str]
    """Of the panel."""
    planned: int
    """Seeds there were to be."""
    seeds: int
    """Those whose panel has a value at every checkpoint."""
    turned: int
    """Of them, those that turn."""
    from_start: int
    """Of these, those that turn at the untrained model."""
    distance: Interval
    """There; without values where it was not measured at the turn of a seed."""
    images: Interval
    gain: Interval
    """There, in the reward trained on against base."""
    panel: Interval
    """There, in standard deviations of base's images."""
    end: Interval
    """The panel at the last evaluation, over all ``seeds``."""


@once
def turn_rows(run: Run, task: str) -> list[TurnRow]:
    """A row for each method trained on ``task`` with a cell that is done."""
    return [_turn_row(run, curves) for curves in metric_curves(run, task)]


def _turn_row(run: Run, curves: MetricCurves) -> TurnRow:
    turns = curves.turns
    there = {seed: curves.seeds[seed][at] for seed, at in turns.items() if at is not None}

    def over_seeds(values: dict[int, float]) -> Interval:
        finite = {seed: value for seed, value in values.items() if math.isfinite(value)}
        return of_reached(finite, len(turns))

    distances = {seed: point.distance for seed, point in there.items()}
    known = np.isfinite(list(distances.values())).all()
    return TurnRow(
        method=curves.method,
        task=curves.task,
        rewards=panel_rewards(run, curves.task),
        planned=len(cells_of(run, curves.method, curves.task)),
        seeds=len(turns),
        turned=len(there),
        from_start=sum(at == 0 for at in turns.values()),
        distance=over_seeds(distances if known else {}),
        images=over_seeds({seed: float(point.images) for seed, point in there.items()}),
        gain=over_seeds({seed: curves.gain(point, seed) for seed, point in there.items()}),
        panel=over_seeds({seed: point.values[PANEL] for seed, point in there.items()}),
        end=t_interval({seed: curves.seeds[seed][-1].values[PANEL] for seed in turns}),
    )
