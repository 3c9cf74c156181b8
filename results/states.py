"""The states of a cell."""

from __future__ import annotations

from typing import Literal

State = Literal[
    "pending",
    "running",
    "interrupted",
    "done",
    "failed",
    "diverged",
    "timed_out",
    "not_applicable",
]
FAILURES: tuple[State, ...] = ("failed", "diverged", "timed_out")
"""A cell in one of these ended without results, and is run again only where that is asked for."""
ORDER: tuple[State, ...] = (
    "done",
    *FAILURES,
    "interrupted",
    "running",
    "pending",
    "not_applicable",
)
"""In which states are told, and which of several stands for them all."""


def words(state: str) -> str:
    """A state as it is told: ``timed out``."""
    return state.replace("_", " ")
