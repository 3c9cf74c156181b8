"""The held-out panel: what the rewards that were not trained on say together.

A reward that is trained on rises whether pictures get better or the reward is gamed. Rewards that
training did not see rise in the first case and fall in the second. Their mean over the way from the
untrained model rises at first and then turns, as that of a gold reward does under optimisation of
its proxy (Gao et al., arXiv 2210.10760, over the same root of the KL divergence).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from results.records import EvaluationRecord
from results.scores import BASE, NO_REWARD, done, done_cells, evaluated_rewards, measure, once
from results.store import Run

SAME_QUANTITY = 0.99
"""Correlation over the untrained model's images, of either sign, from which on two rewards count as
one quantity: JPEG compressibility, its opposite and its proxy would have three votes of one."""


@once
def spreads(run: Run) -> dict[str, float]:
    """Reward to the standard deviation of its values over all images of ``base``: the unit in which
    changes of different rewards are put together."""
    return {name: float(np.nanstd(values)) for name, values in _base_images(run).items()}


@once
def panel_rewards(run: Run, task: str) -> list[str]:
    """Rewards of the panel of ``task``, in the order of the matrix of all rewards.

    Those that score every evaluation of every cell that is done, vary over the images of ``base``,
    share no part with ``task`` where either is a composite, and are not the same quantity
    (:data:`SAME_QUANTITY`) as ``task`` or a reward of the panel before them.
    """
    images, units = _base_images(run), spreads(run)
    composites = _parts(run)
    trained = composites.get(task, {task})
    found: list[str] = []
    for name in evaluated_rewards(run):
        if trained & composites.get(name, {name}) or not units.get(name, 0.0) > 0:
            continue
        others = [images[other] for other in (task, *found) if other in images]
        if _scores_all(run, name) and not any(_same(images[name], other) for other in others):
            found.append(name)
    return found


def panel(run: Run, task: str, record: EvaluationRecord, start: EvaluationRecord) -> float:
    """Mean over the panel of ``task`` of the change from ``start``, each reward's in standard
    deviations of its values over the images of ``base``.

    NaN for a panel without rewards, and where a reward of it has a value that is not finite.
    """
    changes = []
    for name in panel_rewards(run, task):
        now, before = (measure(each, "reward", name) for each in (record, start))
        if now is None or before is None:
            return math.nan
        changes.append((now - before) / spreads(run)[name])
    return math.fsum(changes) / len(changes) if changes else math.nan


def turn(values: ArrayLike) -> int | None:
    """Index of the checkpoint at which a panel turns: the last of the highest, if any follows it.

    ``values`` [checkpoints] are in training order, the untrained model first, so that 0 is a panel
    that falls from the start. None where the last checkpoint is as high as any: no turn yet. Raises
    ValueError for no values, and for one that is not finite, since the highest is unknown then.
    """
    panel = np.asarray(values, dtype=np.float64)
    if panel.ndim != 1 or not len(panel) or not np.isfinite(panel).all():
        raise ValueError(f"a turn needs a row of finite values, not {panel.tolist()}")
    highest = int(np.flatnonzero(panel == panel.max())[-1])
    return highest if highest < len(panel) - 1 else None


@once
def _base_images(run: Run) -> dict[str, np.ndarray]:
    """Reward to its values [images] over all images of ``base``, seed after seed."""
    values: dict[str, list[float]] = {}
    for cell in done_cells(run, BASE, NO_REWARD):
        for name, prompts in cell.picked.rewards.items():
            values.setdefault(name, []).extend(value for images in prompts for value in images)
    return {name: np.array(each, dtype=np.float64) for name, each in values.items()}


@once
def _scores_all(run: Run, name: str) -> bool:
    return all(name in record.rewards for cell in done(run) for record in cell.evaluations)


@once
def _parts(run: Run) -> dict[str, set[str]]:
    """Composite to its own name and the rewards that it is made of, as the configs declare them."""
    declared = [cell.config.composites for cell in done(run) if cell.config]
    return {
        name: {name, *made.get("sum", ()), *made.get("product", ())}
        for composites in declared
        for name, made in composites.items()
    }


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    if first.shape != second.shape:
        return False
    finite = np.isfinite(first) & np.isfinite(second)
    x, y = first[finite], second[finite]
    if len(x) < 2 or not (x.std() > 0 and y.std() > 0):
        return False
    return bool(abs(np.corrcoef(x, y)[0, 1]) >= SAME_QUANTITY)
