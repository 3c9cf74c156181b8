"""Scores of the cells of a run, by seed.

Final scores are those of the picked evaluation on the test prompts (``results.checkpoints``): the
last or the best on validation, never the best of those reported.
Only cells that are done enter; the others stay visible by their state. ``base``, the untrained
model, runs once a seed and serves for every reward, since each evaluation is scored by all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from results.condensed import CondensedEvaluation, prompt_means
from results.records import Counts, EvaluationRecord
from results.store import NO_REWARD, Cell, Run

BASE = "base"
BEST_OF_N = "best-of-n"
CONTROLS = (BASE, BEST_OF_N)

LABEL = " ["
"""What sets the label of a folder off in the name of a method; no method has it in its own."""

Scores = dict[int, float]
"""Seed to the mean over prompts and images."""

Kind = Literal["reward", "diversity"]

Given = ParamSpec("Given")
Result = TypeVar("Result")


def once(
    function: Callable[Concatenate[Run, Given], Result],
) -> Callable[Concatenate[Run, Given], Result]:
    """The function, computed once for each run and arguments; nobody may change the result."""

    @wraps(function)
    def found(run: Run, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        key = (function, args, tuple(kwargs.items()))
        if key not in run.computed:
            run.computed[key] = function(run, *args, **kwargs)
        result: Result = run.computed[key]
        return result

    return found


def labelled(method: str, label: str) -> str:
    """Name of a method of one of several run folders that have it: ``dag [A]``."""
    return f"{method}{LABEL}{label}]"


def original_name(method: str) -> str:
    """The name without the label of its folder."""
    return method.partition(LABEL)[0]


def is_control(method: str) -> bool:
    """Whether a method does not train, of whichever run folder it is."""
    return original_name(method) in CONTROLS


def reward_calls(counts: Counts) -> int:
    """Images that the reward has judged; a call with a gradient is one of them."""
    return counts.reward_calls


@once
def tasks(run: Run) -> list[str]:
    """Rewards that cells are trained on, in matrix order."""
    rewards = (cell.reward for cell in run.cells.values())
    return [reward for reward in dict.fromkeys(rewards) if reward != NO_REWARD]


@once
def methods(run: Run) -> list[str]:
    """Methods of the run, the controls first, then in matrix order."""
    names = list(dict.fromkeys(cell.method for cell in run.cells.values()))
    controls = [name for name in CONTROLS if name in names]
    controls += [name for name in names if is_control(name) and name not in controls]
    return controls + [name for name in names if name not in controls]


@once
def done(run: Run) -> list[Cell]:
    """Cells whose numbers may be used: done, and evaluated at least once."""
    return [cell for cell in run.cells.values() if is_done(cell)]


def is_done(cell: Cell) -> bool:
    """Whether the numbers of a cell may be used."""
    return cell.status.state == "done" and bool(cell.evaluations)


def cells_of(run: Run, method: str, task: str) -> list[Cell]:
    """Cells of a method trained on a reward, in any state; for ``base`` those of all rewards."""
    return run.groups.get((method, training_reward(method, task)), [])


@once
def done_cells(run: Run, method: str, task: str) -> list[Cell]:
    """Those of ``cells_of`` whose numbers may be used."""
    return [cell for cell in cells_of(run, method, task) if is_done(cell)]


def training_reward(method: str, task: str) -> str:
    """The reward in the cell id of a method that is looked at on a task."""
    return NO_REWARD if method == BASE else task


@once
def evaluated_rewards(run: Run) -> list[str]:
    """Rewards that evaluations are scored by, those trained on first."""
    scored = [name for record in _evaluations(run) for name in record.rewards]
    return list(dict.fromkeys([*tasks(run), *run.record.rewards, *scored]))


@once
def encoders(run: Run) -> list[str]:
    """Encoders that diversity is measured in, as recorded."""
    return list(dict.fromkeys(name for record in _evaluations(run) for name in record.diversity))


def _evaluations(run: Run) -> list[EvaluationRecord]:
    return [record for cell in done(run) for record in cell.evaluations]


def by_prompt(record: EvaluationRecord, kind: Kind, name: str) -> list[float]:
    """Mean over the images of each prompt of a reward, or the diversity of each in an encoder.

    NaN for a prompt with a value that is; empty where the evaluation lacks the measure.
    """
    if kind == "diversity":
        return record.diversity.get(name, [])
    if isinstance(record, CondensedEvaluation):
        # Of another reward only the mean is kept, which is no answer here.
        return record.by_prompt[name] if name in record.rewards else []
    return prompt_means(record.rewards.get(name, []))


def measure(record: EvaluationRecord, kind: Kind, name: str) -> float | None:
    """Mean of ``by_prompt``: NaN if a single value is, None where the evaluation lacks it."""
    if isinstance(record, CondensedEvaluation) and kind == "reward":
        return record.means.get(name)
    values = by_prompt(record, kind, name)
    return float(np.mean(values)) if values else None


@once
def final_by_prompt(
    run: Run, method: str, task: str, kind: Kind, name: str
) -> dict[int, list[float]]:
    """Seed to values [prompts] at the picked evaluation of ``method`` trained on ``task``."""
    scores = {
        cell.seed: by_prompt(cell.picked, kind, name) for cell in done_cells(run, method, task)
    }
    return {seed: values for seed, values in scores.items() if values}


@once
def final_scores(run: Run, method: str, task: str, kind: Kind, name: str) -> Scores:
    """Seed to the mean over prompts of ``final_by_prompt``."""
    values = {c.seed: measure(c.picked, kind, name) for c in done_cells(run, method, task)}
    return {seed: value for seed, value in values.items() if value is not None}
