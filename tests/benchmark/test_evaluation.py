"""Evaluation: fair between checkpoints, and without a trace in training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import methods
import rewards
from benchmark import encoders
from benchmark.augmentations import AUGMENTATIONS
from benchmark.evaluation import Diverged, Evaluator, evaluation_rounds
from benchmark.scoring import CountedReward, counted_gradient
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.mixture import load_mixture
from diffusion.pipelines import load_policy
from diffusion.rollout import initial_latents

PROMPTS = ["a cat, fluent style", "a lion, noto style"]


@pytest.fixture
def policy(tiny_model: Path) -> LatentDiffusion:
    return make_policy(tiny_model)


def make_policy(tiny_model: Path) -> LatentDiffusion:
    return load_policy(
        str(tiny_model), seed=0, ledger=Ledger(), sampling_steps=3, guidance_scale=2.0
    )


def evaluator(policy: LatentDiffusion, seed: int = 0, batch_size: int = 8) -> Evaluator:
    return Evaluator(
        policy=policy,
        prompts=PROMPTS,
        images_per_prompt=2,
        seed=seed,
        batch_size=batch_size,
        rewards={"colourfulness": rewards.load("colourfulness")},
        encoders={"efficientnet-lite0": encoders.load("efficientnet-lite0", policy.device)},
    )


def trained(tiny_model: Path, evaluate: bool) -> LatentDiffusion:
    """A policy after two rounds of DDPO, evaluated after each or never."""
    policy = make_policy(tiny_model)
    reward = CountedReward(rewards.load("colourfulness"), policy.ledger)
    task = methods.Task(policy=policy, reward=reward, prompts=("a dog", "a fox"), seed=0, images=8)
    kind = methods.get("ddpo")
    options = {"prompts_per_round": 2, "images_per_prompt": 2}
    method = kind(task, kind.Config.model_validate(options))
    for _ in range(method.rounds):
        method.step()
        if evaluate:
            evaluator(policy).evaluate()
            evaluator(policy, seed=1).evaluate()
    return policy


def test_evaluation_does_not_disturb_training(tiny_model: Path) -> None:
    with_it, without = trained(tiny_model, evaluate=True), trained(tiny_model, evaluate=False)
    weights = without.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in with_it.state_dict().items())
    assert with_it.ledger.counts() == without.ledger.counts()
    assert with_it.ledger.seconds["evaluation"] > 0


def test_the_global_generator_is_not_touched(policy: LatentDiffusion) -> None:
    before = torch.get_rng_state()
    evaluator(policy).evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_images_depend_on_the_seed_and_not_on_the_batch(policy: LatentDiffusion) -> None:
    images = evaluator(policy).evaluate().images
    assert images.shape == (2, 2, 3, 64, 64)
    assert torch.equal(evaluator(policy).evaluate().images, images)
    torch.testing.assert_close(
        evaluator(policy, batch_size=3).evaluate().images, images, atol=1e-4, rtol=0
    )
    assert (evaluator(policy, seed=1).evaluate().images - images).abs().mean() > 1e-3


def test_samplers_share_the_initial_noise(policy: LatentDiffusion) -> None:
    without = dataclasses.replace(evaluator(policy), eta=0.0)
    latents = initial_latents(policy, without._generators())
    conditioning = policy.encode(without._prompts())
    with torch.no_grad():
        for index in range(policy.schedule.steps):
            step = torch.full((len(latents),), index)
            prediction = policy.predict_noise(latents, step, conditioning)
            latents = policy.transition(step, latents, prediction.guided, eta=0.0).mean
        expected = policy.decode(latents).unflatten(0, (2, 2))
    torch.testing.assert_close(without.evaluate().images, expected)
    assert (evaluator(policy).evaluate().images - expected).abs().mean() > 1e-3


def test_rewards_alone_are_those_of_a_whole_evaluation(policy: LatentDiffusion) -> None:
    whole = evaluator(policy, batch_size=3).evaluate().rewards["colourfulness"]
    assert evaluator(policy, batch_size=3).reward_values("colourfulness") == whole
    assert policy.ledger.counts()["reward_calls"] == policy.ledger.counts()["unet_forward"] == 0
    weights = policy.state_dict()
    policy.load_state_dict({name: value * torch.nan for name, value in weights.items()})
    spoilt = torch.tensor(evaluator(policy).reward_values("colourfulness"))
    assert spoilt.isnan().all()


def test_more_candidates_are_never_worse(policy: LatentDiffusion) -> None:
    reward = CountedReward(rewards.load("colourfulness"), policy.ledger)
    one = evaluator(policy).evaluate()
    best = evaluator(policy).evaluate_best(3, reward, cell_seed=0)
    other = evaluator(policy).evaluate_best(3, reward, cell_seed=1)
    values = [torch.tensor(found.rewards["colourfulness"]) for found in (one, best, other)]
    assert (values[1] >= values[0]).all()
    assert (values[1] > values[0]).any()
    assert not torch.equal(values[1], values[2])
    assert policy.ledger.counts()["reward_calls"] == 2 * 3 * 4


def test_diversity_is_within_the_prompt(policy: LatentDiffusion) -> None:
    found = evaluator(policy).evaluate()
    features = torch.nn.functional.normalize(found.features["efficientnet-lite0"], dim=2)
    for prompt, distance in enumerate(found.diversity["efficientnet-lite0"]):
        expected = 1 - float(features[prompt, 0] @ features[prompt, 1])
        assert distance == pytest.approx(expected, abs=1e-5)


def test_images_that_are_not_finite_are_told(policy: LatentDiffusion) -> None:
    weights = policy.state_dict()
    policy.load_state_dict({name: value * torch.nan for name, value in weights.items()})
    found = evaluator(policy).evaluate()
    assert found.bad_images == {"non_finite": 4, "black": 0, "constant": 0}
    for values in (*found.rewards.values(), *found.image_statistics.values()):
        assert torch.tensor(values).isnan().all()
    with pytest.raises(Diverged, match="4 of 4 evaluation images are not finite"):
        found.require_finite()
    reward = CountedReward(rewards.load("colourfulness"), policy.ledger)
    with pytest.raises(Diverged, match="4 of 4 evaluation images are not finite"):
        evaluator(policy).evaluate_best(2, reward, cell_seed=0)


def test_one_image_that_is_not_finite_leaves_the_others_scored(policy: LatentDiffusion) -> None:
    images = evaluator(policy).evaluate().images.flatten(0, 1)
    images[1, 0, 3, 3] = torch.inf
    images[2] = 0
    images[3] = 0.4
    found = evaluator(policy)._score(images, 1.0, [])
    assert found.bad_images == {"non_finite": 1, "black": 1, "constant": 1}
    first, bad, *others = torch.tensor(found.rewards["colourfulness"]).flatten()
    assert bad.isnan() and first.isfinite() and all(other.isfinite() for other in others)
    features = found.features["efficientnet-lite0"].flatten(0, 1)
    assert features[1].isnan().all() and features[[0, 2, 3]].isfinite().all()
    assert torch.tensor(found.diversity["efficientnet-lite0"]).isnan().tolist() == [True, False]


def test_path_kl_changes_nothing_else_and_is_zero_without_training(
    policy: LatentDiffusion,
) -> None:
    plain, watched = evaluator(policy, batch_size=3), evaluator(policy, batch_size=3)
    watched = dataclasses.replace(watched, path_kl_images=1)
    found = watched.evaluate()
    assert found.path_kl == [[pytest.approx(0, abs=1e-6)]] * 2
    assert torch.equal(found.images, plain.evaluate().images)
    assert plain.evaluate().path_kl == []
    assert policy.ledger.counts()["unet_forward"] == 0
    moved = dataclasses.replace(watched, path_kl_images=2)
    weights = policy.state_dict()
    policy.load_state_dict({name: value + 0.05 for name, value in weights.items()})
    both, first = moved.evaluate().path_kl, watched.evaluate().path_kl
    assert (torch.tensor(both) > 0).all()
    assert [prompt[:1] for prompt in both] == [pytest.approx(prompt, rel=1e-3) for prompt in first]


def test_images_are_scored_after_small_changes_too(policy: LatentDiffusion) -> None:
    asked = dataclasses.replace(evaluator(policy), augmented=("colourfulness",))
    found = asked.evaluate()
    assert list(found.augmented) == ["colourfulness"]
    after = found.augmented["colourfulness"]
    assert list(after) == list(AUGMENTATIONS)
    # What a flip does not change is scored the same, whatever the batch.
    torch.testing.assert_close(
        torch.tensor(after["flip"]), torch.tensor(found.rewards["colourfulness"])
    )
    assert after["noise"] != after["flip"] and after["crop"] != after["flip"]
    batched = dataclasses.replace(asked, batch_size=3).evaluate().augmented["colourfulness"]
    for change, values in after.items():
        torch.testing.assert_close(
            torch.tensor(batched[change]), torch.tensor(values), atol=1e-3, rtol=0
        )
    assert evaluator(policy).evaluate().augmented == {}
    assert policy.ledger.counts()["reward_calls"] == 0
    images = found.images.flatten(0, 1).clone()
    images[0] = torch.nan
    spoilt = asked._score(images, 1.0, []).augmented["colourfulness"]
    for values in spoilt.values():
        assert torch.tensor(values).isnan().tolist() == [[True, False], [False, False]]


def test_points_are_scored_as_they_are_and_have_no_statistics() -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=3)
    of_points = Evaluator(
        policy=policy,
        prompts=["a point"],
        images_per_prompt=4,
        seed=0,
        batch_size=3,
        rewards={"point_linear": rewards.load("point_linear")},
        encoders={"direction": encoders.load("direction", policy.device)},
    )
    found = of_points.evaluate()
    assert found.images.shape == (1, 4, 2)
    assert torch.equal(found.features["direction"], found.images)
    assert found.image_statistics == {} and found.path_kl == []
    points = found.images.flatten(0, 1).clone()
    points[0] = 0  # neither black nor constant
    points[1, 0] = torch.nan
    spoilt = of_points._score(points, 1.0, [])
    assert spoilt.bad_images == {"non_finite": 1}
    assert torch.tensor(spoilt.rewards["point_linear"]).isnan().tolist() == [
        [False, True, False, False]
    ]
    assert spoilt.features["direction"][0, 1].isnan().all()
    with pytest.raises(Diverged, match="1 of 4 evaluation images are not finite"):
        spoilt.require_finite()


@pytest.mark.parametrize(
    ("rounds", "times", "expected"),
    [(16, 4, [4, 8, 12, 16]), (3, 4, [1, 2, 3]), (5, 2, [3, 5]), (7, 1, [7]), (0, 4, [])],
)
def test_evaluations_are_even_and_end_with_training(
    rounds: int, times: int, expected: list[int]
) -> None:
    assert evaluation_rounds(rounds, times) == expected


def test_a_gradient_call_is_a_reward_call_too() -> None:
    ledger = Ledger()
    score = counted_gradient(rewards.load("colourfulness"), ledger)
    assert score is not None
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    score(images, ["a"] * 3).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert ledger.counts()["reward_gradient_calls"] == 3
    assert ledger.counts()["reward_calls"] == 3
    assert counted_gradient(rewards.load("jpeg_compressibility"), ledger) is None


class WrongShape(rewards.Reward):
    """Gives one value for all images."""

    name = "wrong"

    def __call__(self, images: torch.Tensor, prompts: object) -> torch.Tensor:
        return torch.zeros(1)


def test_a_reward_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reward 'wrong' gave torch.float32 \[1\] for 3 images"):
        CountedReward(WrongShape(), Ledger())(torch.zeros(3, 3, 8, 8), ["a"] * 3)
