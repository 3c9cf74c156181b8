"""What every reward keeps, over the whole registry.

The rewards of the emoji scorer are tested twice: with its own weights and with a tiny random
network in the same format. Optional ones, whose weights do not come with the program, are tested
with tiny random networks in the files of their releases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import rewards
from benchmark.conformance.checks import Check, NotApplicable
from benchmark.conformance.rewards import REWARD_CHECKS
from rewards import Reward
from rewards.clip_score import ClipScore
from rewards.interface import RewardInputError
from rewards.scorer import FOLDER, load_scorer
from rewards.style import Style
from tests.how_we_know import Record, distance
from tests.rewards.checkpoints import RELEASES as OF_IMAGES
from tests.rewards.vlm_checkpoints import vlm_bertscore

TINY: dict[str, type[Reward]] = {"clip_score (tiny)": ClipScore, "style (tiny)": Style}
RELEASES = {**OF_IMAGES, "vlm_bertscore": vlm_bertscore}
"""Optional reward to how it is made on tiny networks, in a folder of its own."""
PROMPTS = [
    "a fox, fluent style, on a blue background",
    "an owl, noto style, on a red background",
    "a cat, twemoji style, on a white background",
]


REGISTERED = {name: kind for name, kind in rewards.registry().items() if kind.scores == "image"}
CLASSES: dict[str, type[Reward]] = {**REGISTERED, **TINY}
"""Rewards of images; those of points are in ``test_point_rewards.py``."""
DIFFERENTIABLE = [name for name, reward in CLASSES.items() if reward.differentiable]


@pytest.fixture(scope="module")
def make(tiny_scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reward]:
    @functools.cache
    def made(name: str) -> Reward:
        if name in TINY:
            return TINY[name](folder=tiny_scorer)
        if name in RELEASES:
            return RELEASES[name](tmp_path_factory.mktemp(name))
        if reason := REGISTERED[name].unavailable():
            pytest.skip(reason)
        return rewards.load(name)

    return made


@pytest.fixture(params=CLASSES)
def reward(request: pytest.FixtureRequest, make: Callable[[str], Reward]) -> Reward:
    return make(request.param)


@pytest.fixture(params=DIFFERENTIABLE)
def differentiable_reward(request: pytest.FixtureRequest, make: Callable[[str], Reward]) -> Reward:
    return make(request.param)


def test_every_reward_that_needs_weights_has_a_tiny_release():
    assert set(RELEASES) == {name for name, kind in CLASSES.items() if kind.weights}


@pytest.fixture
def images(varied_images) -> Tensor:
    return varied_images(12, seed=3)[[2, 4, 11]]


def assert_in_range(reward: Reward, scores: Tensor) -> None:
    low, high = reward.range
    assert scores.isfinite().all()
    assert low is None or (scores >= low - 1e-5).all()
    assert high is None or (scores <= high + 1e-5).all()


@pytest.mark.parametrize("check", list(REWARD_CHECKS), ids=lambda check: check.find.__name__)
def test_every_reward_conforms(reward: Reward, check: Check[Reward], evidence: Record):
    try:
        found = check.find(reward)
    except NotApplicable:
        assert not reward.differentiable
        return
    assert found.figure <= found.tolerance, found.problem
    evidence(f"every reward: {check.name}", found.figure, found.tolerance, check.formula)


def test_black_and_white_arrive_at_the_network_s_range(tiny_scorer: Path, evidence: Record):
    """What the scorer's image encoder sees is 0 and 1, less its mean and over its deviation."""
    for folder in (tiny_scorer, FOLDER):
        scorer = load_scorer(folder, torch.device("cpu"))
        seen: list[Tensor] = []
        hook = scorer.model.visual.register_forward_pre_hook(
            lambda _, x, seen=seen: seen.append(x[0])
        )
        try:
            ClipScore(folder)(
                torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 64, 64), ["a"] * 2
            )
        finally:
            hook.remove()
        for level, picture in zip((0.0, 1.0), seen[0], strict=True):
            expected = ((level - scorer.mean) / scorer.std).expand_as(picture)
            evidence(
                "the scorer sees black as 0 and white as 1",
                distance(picture, expected),
                1e-6,
                "input of its image encoder and (0 - mean) / std, (1 - mean) / std",
            )


def test_other_sizes(reward: Reward, varied_images):
    images = varied_images(3, size=48)[:, :, :40]
    assert_in_range(reward, reward(images, PROMPTS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_scored_in_fp32(reward: Reward, images: Tensor, dtype: torch.dtype):
    images = images.to(dtype)
    scores = reward(images, PROMPTS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reward(images.float(), PROMPTS), rtol=0, atol=0)


def test_reference_scores_the_saved_picture(reward: Reward, images: Tensor):
    saved = (images * 255).round() / 255
    torch.testing.assert_close(reward(saved, PROMPTS), reward(images, PROMPTS), rtol=0, atol=0)


def test_both_paths_agree_up_to_rounding(
    differentiable_reward: Reward, images: Tensor, evidence: Record
):
    reward = differentiable_reward
    difference = reward.differentiable_score(images, PROMPTS) - reward(images, PROMPTS)
    spread = reward(images, PROMPTS).std()
    declared = reward.path_difference * (1 + reward(images, PROMPTS).abs())
    evidence(
        "every reward: both paths agree on pictures of any value",
        float(((difference.abs() - declared).clamp(min=0)).max() / (0.05 * spread + 0.01)),
        1.0,
        "|differentiable - reference|, less path_difference, over 0.05 of the spread + 0.01",
    )


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
def test_bad_images_are_told(images: Tensor, spoil, message: str):
    with pytest.raises(RewardInputError, match=message):
        rewards.load("colourfulness")(spoil(images), PROMPTS)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (PROMPTS[:2], "2 prompts for 3 images"),
        ("a fox", "not one string"),
        ([*PROMPTS[:2], None], "must be strings, not NoneType"),
    ],
    ids=["too few", "one string", "None"],
)
def test_bad_prompts_are_told(images: Tensor, prompts, message: str):
    with pytest.raises(RewardInputError, match=message):
        rewards.load("colourfulness")(images, prompts)
