"""What every reward keeps, over the whole registry.

The rewards of the emoji scorer are tested twice: with its own weights and with a tiny random
network in the same format.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rewards
from rewards import Reward
from rewards.background import COLOURS
from rewards.clip_score import ClipScore
from rewards.interface import NotDifferentiable, RewardInputError
from rewards.style import Style

TINY = {"clip_score (tiny)": ClipScore, "style (tiny)": Style}
PROMPTS = [
    "a fox, fluent style, on a blue background",
    "an owl, noto style, on a red background",
    "a cat, twemoji style, on a white background",
]


REGISTERED = {name: kind for name, kind in rewards.registry().items() if kind.scores == "image"}
CLASSES: dict[str, type[Reward]] = {**REGISTERED, **TINY}
"""Rewards of images; those of points are in ``test_point_rewards.py``."""
DIFFERENTIABLE = [name for name, reward in CLASSES.items() if reward.differentiable]


def make(name: str, tiny_scorer: Path) -> Reward:
    return TINY[name](folder=tiny_scorer) if name in TINY else rewards.load(name)


@pytest.fixture(params=CLASSES)
def reward(request: pytest.FixtureRequest, tiny_scorer: Path) -> Reward:
    return make(request.param, tiny_scorer)


@pytest.fixture(params=DIFFERENTIABLE)
def differentiable_reward(request: pytest.FixtureRequest, tiny_scorer: Path) -> Reward:
    return make(request.param, tiny_scorer)


@pytest.fixture
def images(varied_images) -> Tensor:
    return varied_images(12, seed=3)[[2, 4, 11]]


def random_states() -> tuple:
    """States of the three global generators."""
    numpy_state = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().tolist(), numpy_state["key"].tolist(), random.getstate()


def assert_in_range(reward: Reward, scores: Tensor) -> None:
    low, high = reward.range
    assert scores.isfinite().all()
    assert low is None or (scores >= low - 1e-5).all()
    assert high is None or (scores <= high + 1e-5).all()


def test_declarations(reward: Reward):
    for text in (reward.name, reward.version, reward.unit, reward.source, type(reward).__doc__):
        assert isinstance(text, str) and text.strip()
    low, high = reward.range
    assert low is None or high is None or low < high
    assert isinstance(reward.differentiable, bool) and isinstance(reward.needs_prompt, bool)
    assert reward.higher_is_better is True


def test_one_fp32_score_an_image_in_range(reward: Reward, images: Tensor):
    scores = reward(images, PROMPTS)
    assert scores.shape == (3,) and scores.dtype == torch.float32
    assert not scores.requires_grad and scores.device == images.device
    assert_in_range(reward, scores)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white(reward: Reward, level: float):
    images = torch.full((2, 3, 64, 64), level, requires_grad=True)
    assert_in_range(reward, reward(images, PROMPTS[:2]))
    if reward.differentiable:
        scores = reward.differentiable_score(images, PROMPTS[:2])
        assert_in_range(reward, scores)
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert gradient.isfinite().all()


def test_other_sizes(reward: Reward, varied_images):
    images = varied_images(3, size=48)[:, :, :40]
    assert_in_range(reward, reward(images, PROMPTS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_scored_in_fp32(reward: Reward, images: Tensor, dtype: torch.dtype):
    images = images.to(dtype)
    scores = reward(images, PROMPTS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reward(images.float(), PROMPTS), rtol=0, atol=0)


def test_autocast_changes_nothing(reward: Reward, images: Tensor):
    expected = reward(images, PROMPTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reward(images, PROMPTS), expected)


def test_an_image_scores_the_same_alone(reward: Reward, images: Tensor):
    together = reward(images, PROMPTS)
    alone = torch.cat([reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


def test_scoring_again_gives_the_same(reward: Reward, images: Tensor):
    first = reward(images, PROMPTS)
    if reward.differentiable:
        reward.differentiable_score(images, PROMPTS)
    assert torch.equal(reward(images, PROMPTS), first)


def test_reference_scores_the_saved_picture(reward: Reward, images: Tensor):
    saved = (images * 255).round() / 255
    torch.testing.assert_close(reward(saved, PROMPTS), reward(images, PROMPTS), rtol=0, atol=0)


def test_prompts_matter_if_and_only_if_declared(reward: Reward):
    colours = [COLOURS[name] for name in ("blue", "red", "white")]
    images = (torch.tensor(colours) / 255).view(3, 3, 1, 1).repeat(1, 1, 64, 64)
    unchanged = torch.equal(reward(images, PROMPTS), reward(images, PROMPTS[::-1]))
    assert unchanged is not reward.needs_prompt


def test_inputs_and_global_random_state_stay(reward: Reward, images: Tensor):
    before, prompts = images.clone(), list(PROMPTS)
    before_states = random_states()
    reward(images, prompts)
    if reward.differentiable:
        reward.differentiable_score(images, prompts)
    assert torch.equal(images, before) and prompts == PROMPTS
    assert random_states() == before_states


def test_gradient_if_and_only_if_declared(reward: Reward, images: Tensor):
    images = images.requires_grad_()
    assert not reward(images, PROMPTS).requires_grad
    if not reward.differentiable:
        with pytest.raises(NotDifferentiable, match=f"'{reward.name}' has no gradient"):
            reward.differentiable_score(images, PROMPTS)
        return
    scores = reward.differentiable_score(images, PROMPTS)
    assert scores.shape == (3,) and scores.dtype == torch.float32
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_both_paths_agree_up_to_rounding(differentiable_reward: Reward, images: Tensor):
    reward = differentiable_reward
    saved = (images * 255).round() / 255
    torch.testing.assert_close(
        reward.differentiable_score(saved, PROMPTS), reward(saved, PROMPTS), rtol=1e-5, atol=1e-5
    )
    difference = reward.differentiable_score(images, PROMPTS) - reward(images, PROMPTS)
    spread = reward(images, PROMPTS).std()
    assert difference.abs().max() < 0.05 * spread + 0.01


def test_gradient_matches_finite_differences(differentiable_reward: Reward, images: Tensor):
    """Along the gradient itself, with a step of a few thousandths of an 8-bit level a pixel."""
    reward = differentiable_reward
    # Away from 0 and 1, which the step must not cross.
    images = (0.1 + 0.8 * images).requires_grad_()
    scores = reward.differentiable_score(images, PROMPTS)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    slope = gradient.flatten(1).norm(dim=1)
    step = 4e-3 * gradient / slope[:, None, None, None]
    with torch.no_grad():
        up = reward.differentiable_score(images + step, PROMPTS)
        down = reward.differentiable_score(images - step, PROMPTS)
    torch.testing.assert_close((up - down) / 8e-3, slope, rtol=0.05, atol=1e-3)


def test_reference_keeps_no_graph_of_a_reward_s_own_weights(images: Tensor):
    class Weighted(Reward):
        name = "weighted"
        weight = torch.nn.Parameter(torch.ones(3))

        def score(self, images, prompts):
            return images.mean((2, 3)) @ self.weight

    assert not Weighted()(images, PROMPTS).requires_grad


def test_a_reward_must_return_one_score_an_image(images: Tensor):
    class Pixelwise(Reward):
        name = "pixelwise"

        def score(self, images, prompts):
            return images.mean(1)

    with pytest.raises(RuntimeError, match=r"'pixelwise' returned shape \[3, 64, 64\] for 3"):
        Pixelwise()(images, PROMPTS)


def _with(images: Tensor, value: float) -> Tensor:
    images = images.clone()
    images[1, 0, 5, 7] = value
    return images


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0], r"shape \[n, 3, H, W\].* not \[3, 64, 64\]"),
        (lambda x: x[:, :1], r"not \[3, 1, 64, 64\]"),
        (lambda x: x.movedim(1, -1), r"not \[3, 64, 64, 3\]"),
        (lambda x: x[:0], r"not \[0, 3, 64, 64\]"),
        (lambda x: (x * 255).to(torch.uint8), r"floats in \[0, 1\], not torch.uint8"),
        (lambda x: x.numpy(), "must be a tensor .* not ndarray"),
        (lambda x: _with(x, float("nan")), "1 of 3 images hold NaN or infinite"),
        (lambda x: _with(x, float("inf")), "1 of 3 images hold NaN or infinite"),
        (lambda x: _with(x, 1.01), r"lie in \[0, 1\], not \[.*, 1.01\]"),
        (lambda x: x * 2 - 1, r"lie in \[0, 1\], not \[-"),
    ],
    ids=["3-d", "grey", "channels last", "none", "uint8", "numpy", "NaN", "inf", ">1", "-1..1"],
)
def test_bad_images_are_refused(reward: Reward, images: Tensor, spoil, message: str):
    calls: list[Callable] = [reward]
    if reward.differentiable:
        calls.append(reward.differentiable_score)
    for call in calls:
        with pytest.raises(RewardInputError, match=message) as caught:
            call(spoil(images), PROMPTS)
        assert reward.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (PROMPTS[:2], "2 prompts for 3 images"),
        ("a fox", "not one string"),
        ([*PROMPTS[:2], None], "must be strings, not NoneType"),
    ],
    ids=["too few", "one string", "None"],
)
def test_bad_prompts_are_refused(reward: Reward, images: Tensor, prompts, message: str):
    with pytest.raises(RewardInputError, match=message):
        reward(images, prompts)
