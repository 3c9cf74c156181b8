"""A method set up for a check: a policy, a reward, a budget of a few images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.conformance.checks import NotApplicable
from benchmark.conformance.tiny import TinyPolicy
from benchmark.scoring import CountedReward, counted_gradient
from diffusion.policy import Policy
from methods import Method, Task
from rewards import Reward

PROMPTS = ("a fox", "an owl", "a red turtle")
SMALL = {
    "prompts_per_round": 2,
    "images_per_prompt": 4,
    "micro_batch_size": 8,
    "timestep_fraction": 1.0,
}
"""Options of a round of eight images, all of whose transitions are trained on."""


class Tint(Reward):
    """Mean of the red channel minus that of the blue: smooth, and different for every picture."""

    name, version, unit, source = "tint", "1", "red - blue", "this project"
    range, differentiable = (-1.0, 1.0), True

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """See :meth:`Reward.score`."""
        return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


class Trial:
    """What the checks of methods are run on: a method and how to make its policy."""

    def __init__(
        self,
        kind: type[Method],
        build_policy: Callable[..., Policy] = TinyPolicy,
        options: Mapping[str, Any] | None = None,
        gradient_rounding: float = 1e-4,
    ) -> None:
        """``build_policy(**settings)`` makes the same policy each time; settings are ``dtype`` and
        ``eta``. ``options`` are changed from the method's defaults in every check.
        ``gradient_rounding`` is what rounding alone may change in a gradient of this policy,
        relative to its largest component."""
        self.kind, self.build_policy = kind, build_policy
        self.gradient_rounding = gradient_rounding
        self.options = {**SMALL, **(options or {})}

    def has_option(self, name: str) -> bool:
        """Whether the method's ``Config`` has an option."""
        return name in self.kind.Config.model_fields

    def task(
        self, policy: Policy, images: int, reward: Reward | None = None, **fields: Any
    ) -> Task:
        """A task as a run makes it, every reward call counted."""
        reward = reward or Tint()
        fields = {
            "reward": CountedReward(reward, policy.ledger),
            "reward_gradient": counted_gradient(reward, policy.ledger),
            "seed": 0,
            **fields,
        }
        return Task(policy=policy, prompts=PROMPTS, images=images, evaluation_images=4, **fields)

    def method(self, task: Task, **options: Any) -> Method:
        """The method on a task; options that it does not have are left out."""
        chosen = {**self.options, **options}
        known = {name: value for name, value in chosen.items() if self.has_option(name)}
        return self.kind(task, self.kind.Config.model_validate(known))

    @cached_property
    def images(self) -> int:
        """The smallest budget, a power of two from 16 on, that holds two rounds."""
        for images in (2**k for k in range(4, 15)):
            try:
                if self.method(self.task(self.build_policy(), images)).rounds >= 2:
                    return images
            except ValueError:
                continue
        raise ValueError("no budget up to 16384 images holds two rounds")

    def start(self, reward: Reward | None = None, **options: Any) -> Method:
        """The method on a new policy and a budget of two rounds."""
        return self.method(self.task(self.build_policy(), self.images, reward), **options)


def frozen_tensors(policy: Policy) -> dict[str, Tensor]:
    """All tensors of a policy and its networks but the trainable parameters, by name."""
    trained = {id(parameter) for parameter in policy.parameters()}
    found: dict[str, Tensor] = {}
    for name, value in vars(policy).items():
        if isinstance(value, nn.Module):
            found |= {f"{name}.{key}": p for key, p in value.named_parameters()}
            found |= {f"{name}.{key}": b for key, b in value.named_buffers()}
        elif isinstance(value, Tensor):
            found[name] = value
    return {name: value for name, value in found.items() if id(value) not in trained}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names whose tensors are not equal in every bit."""
    names = sorted(one.keys() | other.keys())
    return [
        name
        for name in names
        if name not in one or name not in other or not torch.equal(one[name], other[name])
    ]


def require_training(trial: Trial) -> None:
    """Raises ``NotApplicable`` for a method that does not train."""
    if not trial.kind.trains:
        raise NotApplicable("it does not train")


def run(method: Method, rounds: int = 2) -> list[dict[str, float]]:
    """Metrics of so many rounds."""
    return [method.step() for _ in range(rounds)]


def compare_runs(
    one: tuple[Method, list[dict[str, float]]], other: tuple[Method, list[dict[str, float]]]
) -> list[str]:
    """What differs between two runs: weights and metrics, bit for bit."""
    problems = [
        f"{name} differs"
        for name in differing(one[0].policy.state_dict(), other[0].policy.state_dict())
    ]
    for index, (a, b) in enumerate(zip(one[1], other[1], strict=True), 1):
        names = sorted(a.keys() | b.keys())
        problems += [
            f"metric {name!r} differs, pair {index} of rounds"
            for name in names
            if a.get(name) != b.get(name)
        ]
    return problems
