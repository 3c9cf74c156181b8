"""When rounds have become steady enough to be measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

WINDOW = 3
"""Rounds of a rolling median, and rolling medians that have to agree."""
TOLERANCE = 0.05
"""By how much they may differ, as a share of the smallest."""


def settled(seconds: Sequence[float]) -> bool:
    """Whether the last three rolling medians of three rounds lie within 5 % of one another.

    False with fewer than five rounds. A median leaves out a single slow round.
    """
    if len(seconds) < 2 * WINDOW - 1:
        return False
    ends = range(len(seconds) - WINDOW + 1, len(seconds) + 1)
    medians = [statistics.median(seconds[end - WINDOW : end]) for end in ends]
    return max(medians) <= (1 + TOLERANCE) * min(medians)


def warm_up(run_round: Callable[[], float], cap: int) -> tuple[list[float], bool]:
    """Run rounds until they have settled, at most ``cap``; their seconds, and whether they have."""
    seconds: list[float] = []
    while len(seconds) < cap and not settled(seconds):
        seconds.append(run_round())
    return seconds, settled(seconds)
