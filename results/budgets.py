"""Methods at equal budgets, and what a target costs them, on two ledgers.

*Reward calls* are what matters where a reward is dear, such as a person's judgement; *UNet
samples*, forward and backward, where computing is. The budget is what best-of-n sampling spent,
whose own reward is known there alone; a method's lies on a straight line between two of its
evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from results import costs
from results.comparisons import applies
from results.curves import from_untrained
from results.matched import REWARD_LEVELS
from results.paired import Comparison, as_family, compare
from results.records import Counts, EvaluationRecord
from results.scores import (
    BASE,
    BEST_OF_N,
    by_prompt,
    cells_of,
    done_cells,
    final_by_prompt,
    final_scores,
    is_control,
    measure,
    methods,
    once,
    reward_calls,
)
from results.store import Run
from results.tradeoff import at_level

Ledger = Literal["reward_calls", "unet"]

LEDGERS: dict[Ledger, str] = {"reward_calls": "reward calls", "unet": "UNet samples"}
"""What budgets are equal in, and its name. Both are counted; UNet samples are those of training
forward and backward together, one each."""

SPENT: dict[Ledger, Callable[[Counts], int]] = {
    "reward_calls": reward_calls,
    "unet": lambda counts: counts.unet_forward + counts.unet_backward,
}

TARGET_COSTS = {
    "reward_calls": "Reward calls",
    "unet": "UNet samples",
    "training_seconds": "Training seconds",
}
"""What the way to a target is measured in."""


@dataclass(frozen=True)
class EqualBudget:
    """A method where it had spent as much as best-of-n sampling."""

    scores: dict[int, list[float]]
    """Seed to reward [prompts], interpolated between the evaluations around; that of the end where
    the method never spent as much. Seeds that best-of-n has."""
    spent: float
    """By the method at that point, mean over seeds; NaN without a seed."""
    best_of_n_spent: float
    """By best-of-n, mean over seeds; 0 if the run did not count it."""

    @property
    def reached(self) -> bool:
        """Whether both had spent the same."""
        return self.best_of_n_spent > 0 and self.spent >= self.best_of_n_spent


def at_equal_budget(
    run: Run, method: str, task: str, ledger: Ledger = "reward_calls"
) -> EqualBudget:
    """The reward of ``method`` on ``task`` once it had spent what best-of-n of its seed did."""
    of = SPENT[ledger]
    allowed = {
        cell.seed: of(cell.evaluations[-1].counts) for cell in done_cells(run, BEST_OF_N, task)
    }
    scores = {}
    spent = {}
    for cell in done_cells(run, method, task):
        if cell.seed in allowed:
            curve = [
                record for record in from_untrained(run, cell) if by_prompt(record, "reward", task)
            ]
            if not curve:
                continue
            made = [of(record.counts) for record in curve]
            # Without a count there is nothing to cut at: the end is compared.
            spent[cell.seed] = min(allowed[cell.seed] or made[-1], made[-1])
            prompts = zip(*(by_prompt(record, "reward", task) for record in curve), strict=True)
            scores[cell.seed] = [
                float(np.interp(spent[cell.seed], made, values)) for values in prompts
            ]
    return EqualBudget(
        scores=scores,
        spent=float(np.mean(list(spent.values()))) if spent else np.nan,
        best_of_n_spent=float(np.mean([allowed[seed] for seed in spent])) if spent else np.nan,
    )


@dataclass(frozen=True)
class EqualBudgetComparison:
    """A method against best-of-n where both had spent the same."""

    ledger: Ledger
    comparison: Comparison
    scores: dict[int, list[float]]
    """Seed to the method's reward [prompts] at that point."""
    spent: float
    """By the method at that point, mean over seeds."""
    best_of_n_spent: float
    """By best-of-n, mean over seeds; 0 if the run did not count it."""
    reached: bool
    """False where the method never spent as much and is compared at its end."""


@once
def equal_budget_family(
    run: Run, task: str, ledger: Ledger = "reward_calls"
) -> list[EqualBudgetComparison]:
    """Each trained method that applies against best-of-n, adjusted together."""
    if BEST_OF_N not in methods(run):
        return []
    best = final_by_prompt(run, BEST_OF_N, task, "reward", task)
    planned = len(cells_of(run, BEST_OF_N, task))
    trained = [
        method for method in methods(run) if not is_control(method) and applies(run, method, task)
    ]
    points = {method: at_equal_budget(run, method, task, ledger) for method in trained}
    comparisons = as_family(
        [
            compare(
                *(method, BEST_OF_N, point.scores, best),
                planned=max(planned, len(cells_of(run, method, task))),
            )
            for method, point in points.items()
        ]
    )
    return [
        EqualBudgetComparison(
            *(ledger, comparison, point.scores, point.spent),
            *(point.best_of_n_spent, point.reached),
        )
        for comparison, point in zip(comparisons, points.values(), strict=True)
    ]


@dataclass(frozen=True)
class ToTarget:
    """What a method spends until its reward first reaches a share of best-of-n's gain."""

    method: str
    cost: str
    """Of ``TARGET_COSTS``."""
    share: float
    values: dict[int, float]
    """Seed to what it spent, on a straight line between two evaluations; infinite for a miss."""
    planned: int
    """Seeds there were to be."""

    @property
    def reached(self) -> int:
        """Seeds that reach the target."""
        return sum(map(math.isfinite, self.values.values()))

    @property
    def median(self) -> float:
        """Over seeds; infinite where half of them or more miss, NaN without a seed.

        Not the mean: a single miss would make it infinite, and leaving misses out would reward
        them.
        """
        ordered = sorted(self.values.values())
        if not ordered:
            return math.nan
        low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
        return high if math.isinf(high) else (low + high) / 2


@once
def to_target_table(run: Run, task: str) -> list[ToTarget]:
    """Every trained method, cost and share of best-of-n's gain over base (``REWARD_LEVELS``)."""
    base = final_scores(run, BASE, task, "reward", task)
    best = final_scores(run, BEST_OF_N, task, "reward", task)
    levels = {
        share: {
            seed: (1 - share) * base[seed] + share * best[seed] for seed in base if seed in best
        }
        for share in REWARD_LEVELS
    }
    return [
        ToTarget(
            *(method, cost, share),
            values=_spent_until(run, method, task, cost, levels[share]),
            planned=len(cells_of(run, method, task)),
        )
        for method in methods(run)
        if not is_control(method) and done_cells(run, method, task)
        for share in REWARD_LEVELS
        for cost in TARGET_COSTS
    ]


def _spent_until(
    run: Run, method: str, task: str, cost: str, levels: dict[int, float]
) -> dict[int, float]:
    found = {}
    for cell in done_cells(run, method, task):
        curve = [
            (reward, _cost(record, cost))
            for record in from_untrained(run, cell)
            if (reward := measure(record, "reward", task)) is not None
        ]
        level = levels.get(cell.seed, math.nan)
        if not curve or not math.isfinite(level) or not np.isfinite(curve).all():
            continue
        rewards, spent = zip(*curve, strict=True)
        # A target that the untrained model has reached costs nothing.
        reached = 0.0 if rewards[0] >= level else at_level(rewards, spent, level)
        found[cell.seed] = math.inf if math.isnan(reached) else reached
    return found


def _cost(record: EvaluationRecord, cost: str) -> float:
    return float(SPENT["unet"](record.counts) if cost == "unet" else costs.of(record)[cost])
