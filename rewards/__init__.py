"""What alignment maximises: rewards of images, all behind one contract.

A reward is a class in a file of this folder, made known by :func:`register`. The folder is scanned
when somebody first asks, so a new reward is one new file and nothing else changes.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from rewards.interface import Reward
from rewards.scorer import MissingWeights

__all__ = ["Reward", "UnknownReward", "load", "register", "registry"]

_REGISTERED: dict[str, type[Reward]] = {}
_DECLARED = ("name", "version", "unit", "range", "differentiable", "source")


class UnknownReward(ValueError):
    """No reward has that name; the message names the nearest one and lists all."""

    def __init__(self, name: str, known: list[str]):
        self.name = name
        self.nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        super().__init__(
            f"unknown reward {name!r}; the nearest is {self.nearest!r}; known: {', '.join(known)}"
        )


def register(reward: type[Reward]) -> type[Reward]:
    """Class decorator that makes a reward known under its ``name``.

    Raises ``TypeError`` if a declaration is missing, ``ValueError`` if the name is taken.
    """
    missing = [attribute for attribute in _DECLARED if not hasattr(reward, attribute)]
    if missing:
        raise TypeError(f"reward {reward.__qualname__} does not declare {', '.join(missing)}")
    if reward.name in _REGISTERED:
        taken_by = _REGISTERED[reward.name].__module__
        raise ValueError(f"reward name {reward.name!r} is taken by {taken_by}")
    _REGISTERED[reward.name] = reward
    return reward


def registry() -> dict[str, type[Reward]]:
    """All rewards by name, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTERED.items()))


def load(name: str) -> Reward:
    """The reward of that name with its default options.

    Raises :class:`UnknownReward`, or :class:`rewards.scorer.MissingWeights` where the reward needs
    what is not on this machine.
    """
    known = registry()
    if name not in known:
        raise UnknownReward(name, list(known))
    if reason := known[name].unavailable():
        raise MissingWeights(f"reward {name!r} {reason}")
    return known[name]()
