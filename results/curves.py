"""Learning curves over whatever training cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from results import costs
from results.intervals import Interval, paired_difference, t_interval
from results.records import Counts, EvaluationRecord
from results.scores import (
    BASE,
    BEST_OF_N,
    CONTROLS,
    Kind,
    Scores,
    done_cells,
    encoders,
    evaluated_rewards,
    final_scores,
    measure,
    methods,
    reward_calls,
)
from results.store import Cell, Run

COSTS = tuple(costs.COSTS)
"""What a curve can be drawn over."""


def learning_curves(run: Run, task: str) -> pd.DataFrame:
    """Every seed's curve of the methods trained on ``task``, from the untrained model on.

    One row for each evaluation and measure, with the columns method, seed, round, those of
    ``COSTS``, kind ("reward" or "diversity"), name (of the reward or encoder), and value (mean
    over prompts and images).
    """
    rows = []
    measures: list[tuple[Kind, str]] = [("reward", name) for name in evaluated_rewards(run)]
    measures += [("diversity", name) for name in encoders(run)]
    for method in methods(run):
        for cell in done_cells(run, method, task) if method not in CONTROLS else []:
            for record in _from_untrained(run, cell):
                place = {"method": method, "seed": cell.seed, "round": record.round}
                place |= costs.of(record)
                for kind, name in measures:
                    value = measure(record, kind, name)
                    if value is not None:
                        rows.append(place | {"kind": kind, "name": name, "value": value})
    columns = ["method", "seed", "round", *COSTS, "kind", "name", "value"]
    return pd.DataFrame(rows, columns=columns)


def _from_untrained(run: Run, cell: Cell) -> list[EvaluationRecord]:
    """Evaluations of a cell, after that of ``base`` of the same seed at cost zero."""
    first = [record for record in cell.evaluations[:1] if record.round == 0]
    base = [other for other in done_cells(run, BASE, cell.reward) if other.seed == cell.seed]
    # A cell that has evaluated the untrained model itself needs no other start.
    if first or not base:
        return cell.evaluations
    nothing = {"round": 0, "images": 0, "counts": Counts(), "training_seconds": 0.0}
    return [base[0].evaluations[-1].model_copy(update=nothing), *cell.evaluations]


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean of the curves over seeds with its interval, at rounds that all seeds have reached.

    Columns: method, kind, name, round, the mean of each of ``COSTS``, mean, low, high, seeds.
    """
    rows = []
    seeds_of = {method: part["seed"].nunique() for method, part in curves.groupby("method")}
    grouped = curves.groupby(["method", "kind", "name", "round"], sort=False)
    for (method, kind, name, number), part in grouped:
        if part["seed"].nunique() < seeds_of[method]:
            # A mean over fewer seeds would make a step in the curve that no seed took.
            continue
        interval = t_interval(dict(zip(part["seed"], part["value"], strict=True)))
        row = {"method": method, "kind": kind, "name": name, "round": number}
        row |= {cost: float(part[cost].mean()) for cost in COSTS}
        row |= {"mean": interval.mean, "low": interval.low, "high": interval.high}
        rows.append(row | {"seeds": interval.seeds})
    columns = ["method", "kind", "name", "round", *COSTS, "mean", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class BestOfNComparison:
    """A method against best-of-n sampling from the untrained model, paired by seed."""

    final: Interval
    """Difference at the end of training."""
    equal: Interval
    """Difference where the method had made as many reward calls as best-of-n, interpolated
    between the evaluations around; at its end where it never made as many."""
    calls: float
    """Reward calls of the method at that point, mean over seeds; NaN without a seed in common."""
    best_of_n_calls: float
    """Reward calls of best-of-n, mean over seeds; 0 if the run did not count them."""

    @property
    def reached(self) -> bool:
        """Whether the two are compared at the same number of reward calls."""
        return self.best_of_n_calls > 0 and self.calls >= self.best_of_n_calls


def compare_best_of_n(run: Run, method: str, task: str) -> BestOfNComparison:
    """Compare at the end and at equal reward calls."""
    best = final_scores(run, BEST_OF_N, task, "reward", task)
    allowed = {
        cell.seed: reward_calls(cell.evaluations[-1].counts)
        for cell in done_cells(run, BEST_OF_N, task)
    }
    equal: Scores = {}
    calls = {}
    for cell in done_cells(run, method, task):
        if cell.seed in best:
            curve = _from_untrained(run, cell)
            costs = [reward_calls(record.counts) for record in curve]
            values = np.array([measure(record, "reward", task) for record in curve], float)
            # Without a count there is nothing to cut at: the end is compared.
            calls[cell.seed] = min(allowed[cell.seed] or costs[-1], costs[-1])
            equal[cell.seed] = float(np.interp(calls[cell.seed], costs, values))
    return BestOfNComparison(
        final=paired_difference(final_scores(run, method, task, "reward", task), best),
        equal=paired_difference(equal, best),
        calls=float(np.mean(list(calls.values()))) if calls else np.nan,
        best_of_n_calls=float(np.mean([allowed[seed] for seed in calls])) if calls else np.nan,
    )
