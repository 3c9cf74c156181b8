"""The cost ledger: work counted where it happens, in samples, seconds by phase, and joules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.clock import Clock

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

PHASES = (
    "setup",
    "sample",
    "decode",
    "reward",
    "loss",
    "backward",
    "optimizer",
    "other",
    "evaluation",
    "saving",
)
"""What time goes to. ``loss`` is the forward pass of training; ``other`` is what nothing names."""

UNDIVIDED = ("setup", "evaluation", "saving")
"""Phases that keep the time of what they call: an image decoded to be evaluated is evaluation."""

NETWORKS = ("unet", "vae", "text_encoder", "scorer", "flow")
"""Networks whose time is told apart; ``scorer`` is whatever networks the reward has."""


class Ledger:
    """Counts of work, disjoint phases of time, and the time inside networks.

    Phases nest: an inner phase stops the outer one's clock, so phases sum to the time spent in
    any. Inside :meth:`suspended` nothing is counted and no network is timed (evaluation), while
    phases still run.

    A GPU works behind the program's back, so its time is charged to where the program waits for
    it. With ``synchronise`` the ledger waits at the end of every phase and network: exact, and a
    little slower. Without, ``network_seconds`` hold for the CPU only.
    """

    def __init__(self, synchronise: bool = False) -> None:
        self.synchronise = synchronise
        self.energy: Callable[[], float] | None = None
        """Joules the device has used up to now; None where it has no such counter."""
        self.joules: float | None = None
        """Joules of training; None where they are not measured."""
        self.training_seconds: dict[str, float] = {}
        """Seconds by phase inside :meth:`training` alone."""
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._phases, self._networks = Clock(self._now), Clock(self._now)
        self._suspended = 0
        self._in_backward = False

    def _now(self) -> float:
        if self.synchronise and torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

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

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase up to now, in the order of :data:`PHASES`, other names after them."""
        return _ordered(self._phases.read(), PHASES)

    @property
    def network_seconds(self) -> dict[str, float]:
        """Seconds inside each network up to now, forward and backward."""
        return _ordered(self._networks.read(), NETWORKS)

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
        innermost = self._phases.innermost
        self._phases.enter(innermost if innermost in UNDIVIDED else name)
        try:
            yield
        finally:
            self._phases.leave()

    @contextmanager
    def training(self) -> Iterator[None]:
        """A round of training: its phases add up in ``training_seconds``, what no phase names
        being ``other``, and its joules in ``joules``."""
        energy = self.energy() if self.energy else None
        before = self.seconds
        try:
            with self.phase("other"):
                yield
        finally:
            for name, seconds in self.seconds.items():
                spent = seconds - before.get(name, 0.0)
                if spent > 0:
                    self.training_seconds[name] = self.training_seconds.get(name, 0.0) + spent
            if self.energy and energy is not None:
                self.joules = (self.joules or 0.0) + self.energy() - energy

    @contextmanager
    def backward(self) -> Iterator[None]:
        """The phase ``backward``. A network is timed from where the gradient reaches its output to
        where it reaches another's, or the end."""
        self._networks.enter(None)
        self._in_backward = True
        try:
            with self.phase("backward"):
                yield
        finally:
            self._in_backward = False
            self._networks.leave()

    @contextmanager
    def network(self, name: str) -> Iterator[None]:
        """Time inside the network ``name``, forward."""
        self.enter_network(name)
        try:
            yield
        finally:
            self.leave_network()

    def enter_network(self, name: str) -> None:
        """Begin of :meth:`network`, for hooks."""
        self._networks.enter(None if self._suspended else name)

    def leave_network(self) -> None:
        """End of :meth:`network`, for hooks."""
        self._networks.leave()

    def follow(self, name: str, output: Tensor) -> None:
        """Have the backward pass through a network's ``output`` timed as the network's."""
        if output.requires_grad:
            output.register_hook(lambda _: self._reached(name))

    def _reached(self, name: str) -> None:
        if self._in_backward and not self._suspended:
            self._networks.switch(name)

    def state_dict(self) -> dict[str, Any]:
        """Counts, seconds and joules, plain numbers."""
        return {
            "counts": self.counts(),
            "seconds": self.seconds,
            "training_seconds": dict(self.training_seconds),
            "network_seconds": self.network_seconds,
            "joules": self.joules,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._counts = {name: int(state["counts"][name]) for name in COUNTERS}
        self._phases.set(state["seconds"])
        self._networks.set(state["network_seconds"])
        self.training_seconds = dict(state["training_seconds"])
        self.joules = state["joules"]

    def go_on(self, earlier: dict[str, Any]) -> None:
        """Add what :meth:`state_dict` gave in a process before this one to what has been since."""
        now = self.state_dict()
        self.load_state_dict(
            {
                "counts": _sum(earlier["counts"], now["counts"]),
                "seconds": _sum(earlier["seconds"], now["seconds"]),
                "training_seconds": _sum(earlier["training_seconds"], now["training_seconds"]),
                "network_seconds": _sum(earlier["network_seconds"], now["network_seconds"]),
                "joules": _sum_known(earlier["joules"], now["joules"]),
            }
        )


def time_module(module: nn.Module, ledger: Callable[[], Ledger], name: str) -> None:
    """Time every call of a module as the network ``name``, in what ``ledger`` gives then."""

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        ledger().leave_network()
        if isinstance(output, Tensor):  # not after an error
            ledger().follow(name, output)

    module.register_forward_pre_hook(lambda *_: ledger().enter_network(name))
    module.register_forward_hook(leave, always_call=True)


def _ordered(seconds: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    known = {name: seconds[name] for name in names if name in seconds}
    return known | seconds


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _sum_known(one: float | None, other: float | None) -> float | None:
    return other if one is None else one + (other or 0.0)
