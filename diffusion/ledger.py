"""The cost ledger: work counted where it happens, in samples, and seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COUNTERS = (
    "unet_forward",
    "unet_backward",
    "vae_encode",
    "vae_decode",
    "reward_calls",
    "reward_gradient_calls",
    "images",
    "optimizer_steps",
)
"""One unit is one sample through one network once; guidance makes two UNet samples an image."""


class Ledger:
    """Counts of work and disjoint phases of time.

    Phases nest: an inner phase stops the outer one's clock, so phases sum to the time spent in
    any. Inside :meth:`suspended` nothing is counted (evaluation), while phases still run.
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTERS, 0)
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0
        self._suspended = 0

    def add(self, counter: str, samples: int) -> None:
        """Count ``samples`` more; ``KeyError`` for a counter not in :data:`COUNTERS`."""
        if not self._suspended:
            self._counts[counter] += samples
        elif counter not in self._counts:
            raise KeyError(counter)

    def __getattr__(self, name: str) -> int:
        counts = self.__dict__.get("_counts", {})
        if name in counts:
            return counts[name]
        raise AttributeError(name)

    def counts(self) -> dict[str, int]:
        """All counters, in the order of :data:`COUNTERS`."""
        return dict(self._counts)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Count nothing inside."""
        self._suspended += 1
        try:
            yield
        finally:
            self._suspended -= 1

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time inside to ``name``, less what inner phases take."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        """Counts and seconds, plain numbers."""
        return {"counts": self.counts(), "seconds": dict(self.seconds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._counts = {name: int(state["counts"][name]) for name in COUNTERS}
        self.seconds = dict(state["seconds"])
