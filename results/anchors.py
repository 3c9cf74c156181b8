"""Fixed points that scores are normalised by, so that they can be put together over tasks.

A reward is 0 at the untrained model's and 1 at best-of-n's: what a method gains by training, in
units of what sampling alone gains. Both are numbers that the suite declares, part of its protocol;
of a reward for which it declares none, they are the means of the run's own controls. A diversity is
1 at the run's untrained model and 0 where all pictures of a prompt are alike: that model draws the
same pictures in every run of a protocol. No score moves when another method is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from results.numbers import number
from results.scores import BASE, BEST_OF_N, Kind, final_scores, tasks
from results.store import Run


@dataclass(frozen=True)
class Anchors:
    """Values that become 0 and 1."""

    zero: float
    one: float
    declared: bool = False
    """Whether the protocol fixes them; else they are of the run's own controls."""

    def normalised(self, value: float) -> float:
        """``(value - zero) / (one - zero)``; NaN where the anchors are missing or not in order."""
        span = self.one - self.zero
        return (value - self.zero) / span if span > 0 else math.nan

    @property
    def usable(self) -> bool:
        """Whether both anchors are there, the second above the first."""
        return self.one > self.zero


def anchors(run: Run, task: str, kind: Kind, name: str) -> Anchors:
    """Anchors of a reward (the task itself) or of a diversity (``name`` of the encoder)."""
    if kind == "diversity":
        return Anchors(0.0, _mean(run, BASE, task, kind, name))
    if fixed := run.record.anchors.get(name):
        return Anchors(fixed.zero, fixed.one, declared=True)
    base = _mean(run, BASE, task, kind, name)
    return Anchors(base, _mean(run, BEST_OF_N, task, kind, name))


def describe(run: Run) -> str:
    """What the run's rewards are normalised by, in words."""
    of_task = {task: anchors(run, task, "reward", task) for task in tasks(run)}
    declared = [
        f"{task} {number(found.zero)} and {number(found.one)}"
        for task, found in of_task.items()
        if found.declared
    ]
    own = [task for task, found in of_task.items() if not found.declared]
    note = f" ({run.record.anchors_note})" if run.record.anchors_note else ""
    sentences = []
    if declared:
        sentences.append(f"0 and 1 are fixed by the protocol{note}: {', '.join(declared)}.")
    if own:
        of = f"Of {', '.join(own)}" if declared else "Of every reward"
        why = note if not declared else ""
        text = f"{of}, 0 and 1 are this run's own base and best-of-n, since the protocol fixes none"
        sentences.append(f"{text}{why}.")
    return " ".join(sentences)


def _mean(run: Run, method: str, task: str, kind: Kind, name: str) -> float:
    values = list(final_scores(run, method, task, kind, name).values())
    return float(np.mean(values)) if values else math.nan
