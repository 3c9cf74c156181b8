"""What every method keeps."""

from __future__ import annotations

import math

import torch
from pydantic import ValidationError
from torch import Tensor

from benchmark.conformance import hard_rewards, runs, together
from benchmark.conformance.checks import Check, Checks, Finding, NotApplicable, violations
from benchmark.conformance.trial import (
    Tint,
    Trial,
    differing,
    frozen_tensors,
    require_training,
    run,
)
from benchmark.conformance.watch import Watch
from methods import MethodConfig

CHECKS: Checks[Trial] = Checks()
MICRO_BATCHES = (1, 3, 8)


@CHECKS("it declares what it is and documents its options", "declarations missing or wrong")
def declarations(trial: Trial) -> Finding:
    """Name, title, paper, typed options with defaults and descriptions, released settings."""
    kind, problems = trial.kind, []
    for attribute in ("name", "title", "paper"):
        if not isinstance(getattr(kind, attribute, None), str):
            problems.append(f"{attribute!r} is not declared as text")
    config = getattr(kind, "Config", None)
    if not (isinstance(config, type) and issubclass(config, MethodConfig)):
        return violations([*problems, "'Config' is not a MethodConfig"])
    for option, field in config.model_fields.items():
        if not field.description:
            problems.append(f"option {option!r} has no description")
        if field.is_required():
            problems.append(f"option {option!r} has no default")
    for release, settings in kind.RELEASED.items():
        try:
            config.model_validate(settings)
        except ValidationError as error:
            problems.append(f"released settings {release!r}: {error.errors()[0]['msg']}")
    try:
        config.model_validate({"no_such_option": 1})
        problems.append("'Config' accepts unknown options")
    except ValidationError:
        pass
    return violations(problems)


@CHECKS("what it needs is asked for before it starts", "needs that are not declared")
def needs(trial: Trial) -> Finding:
    """A need that is declared is checked by the constructor; what is not declared is not needed."""
    problems = []
    for declared, settings, fields, what in (
        (trial.kind.needs_stochastic_sampler, {"eta": 0.0}, {}, "a sampler with eta 0"),
        (trial.kind.needs_reward_gradient, {}, {"reward_gradient": None}, "a reward gradient"),
    ):
        policy = trial.build_policy(**settings)
        task = trial.task(policy, trial.images if trial.kind.trains else 16, **fields)
        try:
            method = trial.method(task)
        except ValueError:
            if not declared:
                problems.append(f"refuses to start, though it declares no need, for {what}")
            continue
        if declared:
            problems.append(f"starts in spite of its declared need, for {what}")
        elif trial.kind.trains:
            try:
                method.step()
            except Exception as error:
                problems.append(f"undeclared need, {what}: {type(error).__name__}: {error}")
    return violations(problems)


@CHECKS("it draws no more images than its budget", "images drawn over the budget")
def budget(trial: Trial) -> Finding:
    """A budget of one image, and one of two rounds, run to their ends."""
    require_training(trial)
    over = 0
    for images in (1, trial.images):
        policy = trial.build_policy()
        method = trial.method(trial.task(policy, images))
        try:
            rounds = method.rounds
        except ValueError:  # a budget below one round may be refused
            continue
        with Watch(policy) as watch:
            run(method, rounds)
        over = max(over, len(watch.second) - images, policy.ledger.images - images)
    return Finding(max(over, 0), 0, f"{over} images more than the budget allows")


@CHECKS("its metrics are finite, the reward's mean and deviation first", "bad metrics")
def metrics(trial: Trial) -> Finding:
    """Of two rounds."""
    require_training(trial)
    problems = []
    for values in run(trial.start()):
        if list(values)[:2] != ["reward_mean", "reward_std"]:
            problems.append("the first metrics are not reward_mean and reward_std")
        for name, value in values.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                problems.append(f"metric {name!r} is {value!r}")
    return violations(dict.fromkeys(problems))


@CHECKS("it trains the trainable weights alone", "tensors wrongly changed or left")
def trained_weights(trial: Trial) -> Finding:
    """Frozen tensors keep their bits, get no gradient and stay frozen; trainable ones change."""
    require_training(trial)
    method = trial.start()
    policy = method.policy
    frozen = frozen_tensors(policy)
    before = {name: value.detach().clone() for name, value in frozen.items()}
    required = {name: value.requires_grad for name, value in frozen.items()}
    trained = policy.state_dict()
    run(method)
    after = frozen_tensors(policy)
    problems = [f"frozen {name} changed" for name in differing(before, after)]
    for name, value in after.items():
        if value.is_leaf and value.grad is not None:
            problems.append(f"frozen {name} has a gradient")
        if value.requires_grad and not required.get(name):
            problems.append(f"frozen {name} was made trainable")
    now = policy.state_dict()
    if not differing(trained, now):
        problems.append("two rounds changed no trainable weight")
    problems += [f"{name} is not finite" for name, v in now.items() if not v.isfinite().all()]
    return violations(problems)


@CHECKS("no gradient of the reward reaches the model unless it is declared", "gradients")
def reward_gradient(trial: Trial) -> Finding:
    """The reference path is given with a graph, which a method must not follow."""
    require_training(trial)
    policy = trial.build_policy()
    followed: list[Tensor] = []
    task = trial.task(policy, trial.images)
    tint = Tint()

    def traced(images: Tensor, prompts: list[str]) -> Tensor:
        if images.requires_grad:
            images.register_hook(followed.append)
        return tint.score(images, prompts)

    task.reward = traced
    calls = policy.ledger.reward_gradient_calls
    run(trial.method(task))
    calls = policy.ledger.reward_gradient_calls - calls
    if followed:
        return Finding(len(followed), 0, "it differentiates the reference path of the reward")
    if trial.kind.needs_reward_gradient and not calls:
        return Finding(1, 0, "it declares needs_reward_gradient and asks for no gradient")
    if not trial.kind.needs_reward_gradient and calls:
        return Finding(calls, 0, "it asks for reward gradients, and declares no need of them")
    return Finding(0, 0)


def first_update(trial: Trial, dtype: torch.dtype) -> Finding:
    """Largest |log ratio| before the first optimizer step of each of two rounds."""
    require_training(trial)
    if dtype is not torch.float32 and not trial.kind.on_policy_in_half_precision:
        raise NotApplicable("it is declared to compare with densities of unrounded latents")
    worst, revisits = 0.0, 0
    sizes = MICRO_BATCHES if trial.has_option("micro_batch_size") else MICRO_BATCHES[-1:]
    for size in sizes:
        policy = trial.build_policy(dtype=dtype)
        try:
            method = trial.method(trial.task(policy, trial.images), micro_batch_size=size)
        except ValidationError:  # a size that the method's own options exclude
            continue
        with Watch(policy) as watch:
            for _ in range(2):
                watch.new_round()
                reported = abs(method.step().get("log_ratio_first", 0.0))
                worst = max(worst, watch.log_ratio, reported)
        revisits += watch.revisits
    if not revisits:
        raise NotApplicable("it goes through no transition again")
    return Finding(worst, 1e-6, "the first update's importance ratio is not 1")


@CHECKS(
    "the importance ratio is 1 at the first update, float32",
    "|log p - log p_rollout|, every step, micro-batches of 1, 3 and 8",
)
def ratio_float32(trial: Trial) -> Finding:
    """See ``first_update``."""
    return first_update(trial, torch.float32)


@CHECKS(
    "the importance ratio is 1 at the first update, bfloat16",
    "|log p - log p_rollout|, every step, micro-batches of 1, 3 and 8",
)
def ratio_bfloat16(trial: Trial) -> Finding:
    """See ``first_update``."""
    return first_update(trial, torch.bfloat16)


@CHECKS(
    "micro-batches only gather the gradient",
    "gradient of 8 x 1 and 3 x 3 against 1 x 8, relative",
)
def accumulation(trial: Trial) -> Finding:
    """The gradient at the first optimizer step, whatever the micro-batch."""
    require_training(trial)
    if not trial.has_option("micro_batch_size"):
        raise NotApplicable("it has no option 'micro_batch_size'")
    if not trial.kind.micro_batch_invariant:
        raise NotApplicable("its estimator is declared to depend on the micro-batch")
    gradients = []
    for size in MICRO_BATCHES:
        # Without the clip, which would hide a gradient that is too long.
        method = trial.start(micro_batch_size=size, updates_per_round=1, gradient_clip=1e9)
        with Watch(method.policy) as watch:
            method.step()
        if not watch.gradients:
            raise NotApplicable("it steps no optimizer")
        gradients.append(torch.cat([g.flatten() for g in watch.gradients[0]]))
    largest = float(gradients[-1].abs().max())
    if largest == 0:
        return Finding(1.0, 0, "the gradient is zero")
    worst = max(float((g - gradients[-1]).abs().max()) / largest for g in gradients[:-1])
    return Finding(worst, trial.gradient_rounding, "the gradient depends on micro_batch_size")


METHOD_CHECKS: list[Check[Trial]] = [
    *CHECKS,
    *runs.CHECKS,
    *together.CHECKS,
    *hard_rewards.CHECKS,
]
"""All there is."""
