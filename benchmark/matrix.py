"""The cells of a run: methods x rewards x seeds, and which of them cannot be.

``base`` depends on no reward, so it is one cell a seed, under the reward ``none``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

BASE = "base"
CONTROLS = (BASE, "best-of-n")
"""Methods that are part of every run, asked for or not."""
NO_REWARD = "none"


class MethodNeeds(Protocol):
    """What the matrix asks of a method class."""

    @property
    def needs_reward_gradient(self) -> bool: ...
    @property
    def needs_stochastic_sampler(self) -> bool: ...
    @property
    def several_processes(self) -> bool: ...


class RewardKind(Protocol):
    """What the matrix asks of a reward class."""

    @property
    def differentiable(self) -> bool: ...
    @property
    def scores(self) -> str: ...


@dataclass(frozen=True)
class Cell:
    """One method trained on one reward with one seed."""

    method: str
    reward: str
    """Reward trained on, or ``none``."""
    seed: int
    not_applicable: str = ""
    """Why the pairing cannot be; empty when it can."""

    @property
    def id(self) -> str:
        """Name of the cell and of its folder."""
        return f"{self.method}--{self.reward}--s{self.seed}"


def with_controls(methods: Iterable[str]) -> list[str]:
    """``methods`` with the controls first, each once."""
    return list(dict.fromkeys([*CONTROLS, *methods]))


def cells(
    methods: Mapping[str, MethodNeeds],
    rewards: Mapping[str, RewardKind],
    seeds: Iterable[int],
    eta: float,
    output: str = "image",
    processes: int = 1,
) -> list[Cell]:
    """All cells in the order in which they run; nothing is built to find out what applies.

    ``output`` is what the model makes, images or points; ``processes`` train a cell together.
    """
    seeds = list(seeds)
    found: list[Cell] = []
    for method, needs in methods.items():
        for reward in [NO_REWARD] if method == BASE else rewards:
            reason = _obstacle(method, needs, reward, rewards.get(reward), eta, output)
            if not needs.several_processes and processes > 1:
                reason = reason or (
                    f"{method} trains in one process, and model.processes is {processes}"
                )
            found += [Cell(method, reward, seed, reason) for seed in seeds]
    return found


def _obstacle(
    method: str,
    needs: MethodNeeds,
    reward: str,
    kind: RewardKind | None,
    eta: float,
    output: str,
) -> str:
    if kind is not None and kind.scores != output:
        return f"{reward} scores {kind.scores}s, and the model makes {output}s"
    if needs.needs_reward_gradient and kind is not None and not kind.differentiable:
        return f"{method} needs a reward gradient, and {reward} has none"
    if needs.needs_stochastic_sampler and eta == 0:
        return f"{method} needs a stochastic sampler, and model.eta is 0"
    return ""
