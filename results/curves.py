"""Learning curves over whatever training cost."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from results import costs
from results.intervals import t_interval
from results.records import Counts, EvaluationRecord
from results.scores import (
    BASE,
    BEST_OF_N,
    NO_REWARD,
    Kind,
    done_cells,
    encoders,
    evaluated_rewards,
    is_control,
    measure,
    methods,
    once,
    original_name,
)
from results.store import Cell, Run

COSTS = (*costs.COSTS, costs.DISTANCE)
"""What a curve can be drawn over."""


Measure = tuple[Kind, str]
"""A reward or a diversity, and the name of the reward or encoder."""


def learning_curves(run: Run, task: str, measures: Sequence[Measure] | None = None) -> pd.DataFrame:
    """Every seed's curve of the methods trained on ``task``, from the untrained model on.

    In some ``measures``, or in every reward and encoder.

    One row for each evaluation and measure, with the columns protocol, method, seed, round, those
    of ``COSTS``, kind ("reward" or "diversity"), name (of the reward or encoder), and value (mean
    over prompts and images).
    """
    rows = []
    if measures is None:
        measures = [
            *(("reward", name) for name in evaluated_rewards(run)),
            *(("diversity", name) for name in encoders(run)),
        ]
    for method in methods(run):
        for cell in done_cells(run, method, task) if not is_control(method) else []:
            for record in from_untrained(run, cell):
                place: dict[str, object] = {"protocol": run.record.protocol, "method": method}
                place |= {"seed": cell.seed, "round": record.round, **costs.of(record)}
                for kind, name in measures:
                    value = measure(record, kind, name)
                    if value is not None:
                        rows.append(place | {"kind": kind, "name": name, "value": value})
    columns = ["protocol", "method", "seed", "round", *COSTS, "kind", "name", "value"]
    return pd.DataFrame(rows, columns=columns)


def from_untrained(run: Run, cell: Cell) -> list[EvaluationRecord]:
    """Evaluations of a cell, after that of ``base`` of the same seed at cost zero."""
    first = [record for record in cell.evaluations[:1] if record.round == 0]
    base = _untrained(run).get(cell.seed)
    # A cell that has evaluated the untrained model itself needs no other start; best-of-n has no
    # rounds, and its only evaluation is not of that model alone.
    if (first and original_name(cell.method) != BEST_OF_N) or base is None:
        return cell.evaluations
    return [base, *cell.evaluations]


@once
def _untrained(run: Run) -> dict[int, EvaluationRecord]:
    """Seed to the evaluation of the untrained model, at no cost."""
    nothing = {"round": 0, "images": 0, "counts": Counts(), "training_seconds": 0.0}
    return {
        cell.seed: cell.picked.model_copy(update=nothing)
        for cell in reversed(done_cells(run, BASE, NO_REWARD))
    }


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean of the curves over seeds with its interval, at rounds that all seeds have reached.

    Curves of several runs may be given together; those of different protocols stay apart.
    Columns: protocol, method, kind, name, round, the mean of each of ``COSTS``, mean, low, high,
    seeds.
    """
    rows = []
    seeds_of = curves.groupby(["protocol", "method"])["seed"].nunique().to_dict()
    grouped = curves.groupby(["protocol", "method", "kind", "name", "round"], sort=False)
    for (protocol, method, kind, name, number), part in grouped:
        if part["seed"].nunique() < seeds_of[protocol, method]:
            # A mean over fewer seeds would make a step in the curve that no seed took.
            continue
        interval = t_interval(dict(zip(part["seed"], part["value"], strict=True)))
        row = {"protocol": protocol, "method": method, "kind": kind, "name": name}
        row["round"] = number
        row |= {cost: float(part[cost].mean()) for cost in COSTS}
        row |= {"mean": interval.mean, "low": interval.low, "high": interval.high}
        rows.append(row | {"seeds": interval.seeds})
    columns = ["protocol", "method", "kind", "name", "round", *COSTS]
    columns += ["mean", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)
