"""Fixed points that scores are normalised by, so that they can be put together over tasks.

A reward is 0 at the untrained model's and 1 at best-of-n's: what a method gains by training, in
units of what sampling alone gains. A diversity is 1 at the untrained model's and 0 where all
pictures of a prompt are alike. Both anchors are controls that every run has, so a score does not
move when another method is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from results.scores import BASE, BEST_OF_N, Kind, final_scores
from results.store import Run


@dataclass(frozen=True)
class Anchors:
    """Values that become 0 and 1."""

    zero: float
    one: float

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
    base = _mean(run, BASE, task, kind, name)
    if kind == "diversity":
        return Anchors(0.0, base)
    return Anchors(base, _mean(run, BEST_OF_N, task, kind, name))


def _mean(run: Run, method: str, task: str, kind: Kind, name: str) -> float:
    values = list(final_scores(run, method, task, kind, name).values())
    return float(np.mean(values)) if values else math.nan
