"""The rule that picks which checkpoint of a cell is reported, declared in the suite.

It sees the validation scores alone: what the test prompts gave cannot change the choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

CheckpointRule = Literal["last", "best-on-validation"]


def validation_score(values: Sequence[Sequence[float]]) -> float:
    """Mean of a reward ``[prompts][images]``; NaN if one value is, or if there is none."""
    flat = [value for images in values for value in images]
    return fmean(flat) if flat else math.nan


def pick(rule: CheckpointRule, validation: Sequence[Sequence[Sequence[float]]]) -> int:
    """Index of the checkpoint that the rule picks, of at least one.

    ``validation`` holds, for each checkpoint in the order of training, the reward trained on by
    ``[prompts][images]``, or nothing where it was not measured. ``best-on-validation`` takes the
    highest mean, of equals the earliest; a mean that is NaN is below all others.
    """
    if rule == "last":
        return len(validation) - 1
    scores = [validation_score(values) for values in validation]
    scores = [-math.inf if math.isnan(score) else score for score in scores]
    return scores.index(max(scores))
