"""What every reward keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmark.conformance.checks import Checks, Finding, NotApplicable, violations
from benchmark.conformance.pictures import BACKGROUNDS, PROMPTS, plain, saved, varied
from benchmark.conformance.randomness import global_states, seeded_globally
from rewards import Reward
from rewards.interface import NotDifferentiable, RewardInputError

REWARD_CHECKS: Checks[Reward] = Checks()
Formula = Callable[[Tensor, Sequence[str]], Tensor]


def require_gradient(reward: Reward) -> None:
    """Raises ``NotApplicable`` for a reward that declares no gradient."""
    if not reward.differentiable:
        raise NotApplicable("it declares no gradient")


def paths(reward: Reward) -> list[Formula]:
    """The ways to call a reward."""
    return [reward, reward.differentiable_score] if reward.differentiable else [reward]


def furthest(one: Tensor, other: Tensor) -> float:
    """Largest difference, over one plus the largest score."""
    return float((one - other).detach().abs().max() / (1 + other.detach().abs().max()))


@REWARD_CHECKS("it declares what it is", "declarations missing or wrong")
def declarations(reward: Reward) -> Finding:
    """Name, version, unit, source and docstring as text; range; flags."""
    problems = []
    for attribute in ("name", "version", "unit", "source", "__doc__"):
        text = getattr(reward, attribute, None)
        if not isinstance(text, str) or not text.strip():
            problems.append(f"{attribute!r} is not declared as text")
    low, high = getattr(reward, "range", (0.0, 0.0))
    if low is not None and high is not None and not low < high:
        problems.append(f"'range' is {(low, high)}")
    for attribute in ("differentiable", "needs_prompt"):
        if not isinstance(getattr(reward, attribute, None), bool):
            problems.append(f"{attribute!r} is not declared as True or False")
    if reward.higher_is_better is not True:
        problems.append("'higher_is_better' is not True: give a cost a minus sign")
    return violations(problems)


@REWARD_CHECKS("one finite float32 score an image, within the declared range", "scores wrong")
def scores(reward: Reward) -> Finding:
    """Both paths, of varied pictures, and of black and of white ones."""
    problems = []
    for images in (varied(), plain([(0, 0, 0), (255, 255, 255), (128, 128, 128)])):
        for path in paths(reward):
            values = path(images, PROMPTS)
            if values.shape != (3,) or values.dtype != torch.float32:
                problems.append(f"gives {values.dtype} {list(values.shape)} for 3 images")
                continue
            if not values.isfinite().all():
                problems.append(f"gives {values.tolist()}")
            low, high = reward.range
            below = low is not None and bool((values < low - 1e-5).any())
            above = high is not None and bool((values > high + 1e-5).any())
            if below or above:
                problems.append(f"gives {values.tolist()} outside its range {reward.range}")
    return violations(problems)


@REWARD_CHECKS(
    "its formula sees black as 0 and white as 1", "|lowest - 0| and |highest - 1| of its input"
)
def input_range(reward: Reward) -> Finding:
    """What ``score`` is given for a black and a white picture, by either path."""
    seen, worst = [torch.zeros(0)], 0.0

    def watched(original: Formula) -> Formula:
        def formula(images: Tensor, prompts: Sequence[str]) -> Tensor:
            seen.append(images.detach())
            return original(images, prompts)

        return formula

    reward.reference_score = watched(reward.reference_score)  # type: ignore[method-assign, assignment]
    reward.score = watched(reward.score)  # type: ignore[method-assign, assignment]
    try:
        for path in paths(reward):
            path(plain([(0, 0, 0), (255, 255, 255)]), PROMPTS[:2])
            low, high = seen[-1].aminmax()
            worst = max(worst, abs(float(low)), abs(float(high) - 1))
    finally:
        del reward.score, reward.reference_score
    return Finding(worst, 0, "black and white do not arrive as 0 and 1")


@contextmanager
def called_modules() -> Iterator[list[nn.Module]]:
    """The modules whose forward pass runs inside."""
    called: list[nn.Module] = []

    def note(module: nn.Module, _: Any) -> None:
        # Some networks make one anew in every pass, and it is the same in either mode.
        if not isinstance(module, nn.Softmax):
            called.append(module)

    hook = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        hook.remove()


@REWARD_CHECKS("its networks are frozen and in evaluation mode", "modules that are not")
def evaluation_mode(reward: Reward) -> Finding:
    """Every module that runs, and every parameter of it, also after a backward pass."""
    images = varied().requires_grad_()
    with called_modules() as called:
        reward(images, PROMPTS)
        if reward.differentiable:
            reward.differentiable_score(images, PROMPTS).sum().backward()
    problems = [f"{type(m).__name__} runs in training mode" for m in called if m.training]
    for module in called:
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad or parameter.grad is not None:
                problems.append(f"{name} of {type(module).__name__} takes a gradient")
    return violations(dict.fromkeys(problems))


@REWARD_CHECKS("the same pictures get the same scores", "scores that differ in any bit")
def determinism(reward: Reward) -> Finding:
    """Called again, under other global seeds; the global generators stay as they were."""
    images, problems = varied(), []
    for path in paths(reward):
        results = []
        for seed in (1, 2):
            with seeded_globally(seed):
                before = global_states()
                results.append(path(images, PROMPTS).detach())
                if global_states() != before:
                    problems.append("draws from a global random generator")
        if not torch.equal(*results):
            problems.append("scores change from one call to the next")
    return violations(dict.fromkeys(problems))


@REWARD_CHECKS(
    "a score does not depend on the batch", "|in a batch - alone| over 1 + |score|, any order"
)
def batches(reward: Reward) -> Finding:
    """Alone, in another order, and beside other pictures; equal pictures get equal scores."""
    images, worst = varied(), 0.0
    for path in paths(reward):
        together = path(images, PROMPTS)
        alone = torch.cat([path(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
        turned = path(images.flip(0), PROMPTS[::-1]).flip(0)
        twins = path(images[[0, 0, 1]], [PROMPTS[0], PROMPTS[0], PROMPTS[1]])
        for one, other in ((alone, together), (turned, together), (twins[:1], twins[1:2])):
            worst = max(worst, furthest(one, other))
    return Finding(worst, 1e-5, "the score of a picture depends on the pictures beside it")


@REWARD_CHECKS("pictures and prompts stay as they are", "inputs changed")
def inputs(reward: Reward) -> Finding:
    """Both paths leave what they are given."""
    problems = []
    for path in paths(reward):
        images, prompts = varied(), list(PROMPTS)
        path(images, prompts)
        if not torch.equal(images, varied()) or prompts != PROMPTS:
            problems.append("changes its inputs")
    return violations(problems)


@REWARD_CHECKS("the prompt matters if and only if that is declared", "declarations contradicted")
def prompts(reward: Reward) -> Finding:
    """Pictures of three colours, with their prompts and with each other's."""
    images = plain(BACKGROUNDS)
    same = torch.equal(reward(images, PROMPTS), reward(images, PROMPTS[::-1]))
    if same and reward.needs_prompt:
        return Finding(1, 0, "declares needs_prompt, and other prompts give the same scores")
    if not same and not reward.needs_prompt:
        return Finding(1, 0, "other prompts give other scores: declare needs_prompt")
    return Finding(0, 0)


@REWARD_CHECKS("float32 inside autocast", "|under bfloat16 autocast - without| over 1 + |score|")
def precision(reward: Reward) -> Finding:
    """Both paths."""
    worst = 0.0
    for path in paths(reward):
        expected = path(varied(), PROMPTS)
        with torch.autocast("cpu", torch.bfloat16):
            worst = max(worst, furthest(path(varied(), PROMPTS), expected))
    return Finding(worst, 1e-6, "autocast changes the scores")


@REWARD_CHECKS("it has a gradient if and only if it declares one", "gradients wrong")
def gradient(reward: Reward) -> Finding:
    """None by the reference path; finite and not all zero by the differentiable one."""
    images = varied().requires_grad_()
    problems = []
    if reward(images, PROMPTS).requires_grad:
        problems.append("the reference path has a graph")
    if not reward.differentiable:
        try:
            reward.differentiable_score(images, PROMPTS)
            problems.append("declares no gradient, and differentiable_score gives one")
        except NotDifferentiable:
            pass
        return violations(problems)
    values = reward.differentiable_score(images, PROMPTS)
    if not values.requires_grad:
        return violations([*problems, "differentiable_score has no gradient to the pictures"])
    (slope,) = torch.autograd.grad(values.sum(), images)
    if not slope.isfinite().all():
        problems.append("the gradient is not finite")
    elif not (slope.flatten(1).norm(dim=1) > 0).all():
        problems.append("the gradient of a picture is zero")
    extreme = plain([(0, 0, 0), (255, 255, 255)]).requires_grad_()
    values = reward.differentiable_score(extreme, PROMPTS[:2])
    if not torch.autograd.grad(values.sum(), extreme)[0].isfinite().all():
        problems.append("the gradient of a black or white picture is not finite")
    return violations(problems)


@REWARD_CHECKS(
    "both paths give the same score of a saved picture",
    "|difference| over 1 + |score|, less the declared path_difference",
)
def agreement(reward: Reward) -> Finding:
    """On pictures of 8 bits a channel, which rounding leaves as they are."""
    require_gradient(reward)
    images = saved(varied())
    worst = furthest(reward.differentiable_score(images, PROMPTS), reward(images, PROMPTS))
    beyond = max(0.0, worst - reward.path_difference)
    return Finding(beyond, 1e-5, "differentiable_score is not the reference's formula")


@REWARD_CHECKS("its gradient is that of finite differences", "relative, along the gradient")
def finite_differences(reward: Reward) -> Finding:
    """With a step of a thousandth of an 8-bit level a pixel, away from 0 and 1: networks with kinks
    bend within less than ten of those, and far smaller steps drown in rounding."""
    require_gradient(reward)
    images = (0.1 + 0.8 * varied()).requires_grad_()
    values = reward.differentiable_score(images, PROMPTS)
    (slope,) = torch.autograd.grad(values.sum(), images)
    norm = slope.flatten(1).norm(dim=1)
    step = 1e-3 * slope / norm.clamp(min=1e-12)[:, None, None, None]
    with torch.no_grad():
        up = reward.differentiable_score(images + step, PROMPTS)
        down = reward.differentiable_score(images - step, PROMPTS)
    worst = ((up - down) / 2e-3 - norm).abs() / norm.clamp(min=1e-2)
    return Finding(float(worst.max()), 0.05, "the gradient does not point where the score rises")


BAD_IMAGES: dict[str, Callable[[Tensor], Any]] = {
    "three dimensions": lambda x: x[0],
    "one channel": lambda x: x[:, :1],
    "channels last": lambda x: x.movedim(1, -1),
    "no picture": lambda x: x[:0],
    "uint8": lambda x: (x * 255).to(torch.uint8),
    "NaN": lambda x: x.index_fill(1, torch.tensor([0]), float("nan")),
    "values above 1": lambda x: x + 0.5,
    "values from -1 to 1": lambda x: x * 2 - 1,
}
BAD_PROMPTS: dict[str, Any] = {
    "too few prompts": PROMPTS[:2],
    "one string": "a fox",
    "a prompt that is None": [*PROMPTS[:2], None],
}


@REWARD_CHECKS("bad pictures and prompts are refused in one line", "bad inputs accepted")
def bad_inputs(reward: Reward) -> Finding:
    """Each has to raise ``RewardInputError``, by either path."""
    cases = {name: (spoil(varied()), PROMPTS) for name, spoil in BAD_IMAGES.items()}
    cases |= {name: (varied(), given) for name, given in BAD_PROMPTS.items()}
    problems = []
    for name, (images, given) in cases.items():
        for path in paths(reward):
            try:
                path(images, given)
                problems.append(f"accepts {name}")
            except RewardInputError as error:
                if "\n" in str(error) or reward.name not in str(error):
                    problems.append(f"does not say its name in one line, for {name}")
            except Exception as error:
                problems.append(f"{type(error).__name__} instead of RewardInputError for {name}")
    return violations(dict.fromkeys(problems))
