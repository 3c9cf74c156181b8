"""What every method makes of rewards that are hard to train on, or fail."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from benchmark.conformance.checks import Checks, Finding, NotApplicable, violations
from benchmark.conformance.trial import Tint, Trial, compare_runs, differing, require_training, run
from rewards import Reward

CHECKS: Checks[Trial] = Checks()


class Whole(Tint):
    """Whole numbers, several of them."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        tint = 10 * super().score(images, prompts)
        return tint + (tint.round() - tint).detach()


class Constant(Tint):
    """The same reward for every picture."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        return 1000.0 + 0 * super().score(images, prompts)


class NearConstant(Tint):
    """Rewards that differ by a few units of the last place."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        return 1000.0 + 1e-3 * super().score(images, prompts)


@CHECKS("whole-number rewards are trained on as fractions are", "weights that differ")
def whole_numbers(trial: Trial) -> Finding:
    """The same rewards as integers and as floats, bit for bit."""
    require_training(trial)
    if trial.kind.needs_reward_gradient:
        raise NotApplicable("integers have no gradient")
    reward, runs = Whole(), []
    for dtype in (torch.float32, torch.int64):
        task = trial.task(trial.build_policy(), trial.images)

        def score(images: Tensor, prompts: list[str], dtype: torch.dtype = dtype) -> Tensor:
            return reward(images, prompts).to(dtype)

        task.reward = score
        method = trial.method(task)
        runs.append((method, run(method)))
    return violations(compare_runs(*runs))


@CHECKS("rewards that hardly differ leave weights and metrics finite", "values not finite")
def near_constant(trial: Trial) -> Finding:
    """Two rounds at rewards of 1000, and of 1000 and what rounding makes of it."""
    require_training(trial)
    problems = []
    for reward in (Constant(), NearConstant()):
        method = trial.start(reward)
        values = [item for metrics in run(method) for item in metrics.items()]
        problems += [f"metric {k!r} is {value}" for k, value in values if not math.isfinite(value)]
        weights = method.policy.state_dict()
        problems += [f"{k} is not finite" for k, v in weights.items() if not v.isfinite().all()]
    return violations(dict.fromkeys(problems))


class NotANumber(Tint):
    """NaN for every picture."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        return super().score(images, prompts) * float("nan")


class WrongShape(Tint):
    """A score a pixel."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        return images.mean(1)


class Raises(Tint):
    """Always fails."""

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        """See :meth:`Reward.score`."""
        raise RuntimeError("this reward fails")


@CHECKS("a reward that fails stops it before the weights change", "failures passed over")
def failing_rewards(trial: Trial) -> Finding:
    """NaN, the wrong shape, and an exception."""
    require_training(trial)
    problems = []
    bad: tuple[type[Reward], ...] = (NotANumber, WrongShape, Raises)
    for reward in bad:
        method = trial.start(reward())
        before = method.policy.state_dict()
        try:
            method.step()
            problems.append(f"it goes on when the reward gives {reward.__name__}")
        except Exception:
            pass
        if differing(before, method.policy.state_dict()):
            problems.append(f"it changes weights when the reward gives {reward.__name__}")
    return violations(problems)
