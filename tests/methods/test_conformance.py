"""What holds for every method that trains, on a tiny Stable Diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import methods
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.rollout import rollout, sample
from methods import replay, sampling
from methods.alignprop import AlignPropConfig, gradient_steps, sample_with_gradient
from tests.methods.conftest import PROMPTS, ROUND, STEPS, gradient_of, make_method, make_task

MakePolicy = Callable[..., LatentDiffusion]
TRAINED = [name for name, kind in methods.registry().items() if kind.trains]
IMAGES = 8
PASS = 2 * IMAGES * STEPS
"""UNet samples of one guided pass over a round."""
COUNTS: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("ddpo-sf", {}, {"unet_forward": 2 * PASS, "unet_backward": PASS, "optimizer_steps": 1}),
    ("ddpo", {}, {"unet_forward": 2 * PASS, "unet_backward": PASS, "optimizer_steps": 2}),
    (
        "ddpo",
        {"guidance_in_training": False},
        {"unet_forward": PASS + PASS // 2, "unet_backward": PASS // 2},
    ),
    ("ddpo", {"timestep_fraction": 0.5}, {"unet_backward": PASS // 2}),
    *[
        (
            name,
            {},
            {
                "unet_forward": 2 * PASS,
                "unet_backward": PASS,
                "vae_decode": IMAGES * (STEPS + 1),
                "reward_calls": IMAGES * (STEPS + 1),
                "optimizer_steps": 2,
            },
        )
        for name in ("dag", "dag-kl")
    ],
    (
        "residual-db",
        {},
        {
            "unet_forward": 3 * PASS,
            "unet_backward": PASS,
            "vae_decode": IMAGES * (STEPS + 1),
            "reward_calls": IMAGES * (STEPS + 1),
            "optimizer_steps": 2,
        },
    ),
    (
        "dag",
        {"fresh_rewards": True},
        {
            "unet_forward": 2 * PASS + IMAGES * (2 * STEPS - 1),
            "vae_decode": IMAGES * 2 * STEPS,
            "reward_calls": IMAGES * 2 * STEPS,
        },
    ),
    (
        "alignprop",
        {"last_steps": 3},
        {
            "unet_forward": PASS + 2 * IMAGES * 3,
            "unet_backward": 2 * IMAGES * 3,
            "reward_calls": 0,
            "reward_gradient_calls": IMAGES,
            "optimizer_steps": 2,
        },
    ),
]


@pytest.mark.parametrize(("name", "options", "expected"), COUNTS)
def test_a_round_costs_what_is_counted_by_hand(
    tiny_policy: MakePolicy, name: str, options: dict[str, Any], expected: dict[str, int]
) -> None:
    policy = tiny_policy()
    make_method(name, make_task(policy), **ROUND, **options).step()
    expected = {"images": IMAGES, "vae_decode": IMAGES, "vae_encode": 0, **expected}
    if name != "alignprop":
        expected = {"reward_calls": IMAGES, "reward_gradient_calls": 0, **expected}
    counts = policy.ledger.counts()
    assert {key: counts[key] for key in expected} == expected


@pytest.mark.parametrize("name", TRAINED)
def test_a_round_changes_the_trainable_weights_alone(tiny_policy: MakePolicy, name: str) -> None:
    policy = tiny_policy()
    before, trained = weights(policy), policy.state_dict()
    metrics = make_method(name, make_task(policy), **ROUND).step()
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert {"reward_mean", "reward_std", "loss"} <= metrics.keys()
    after = weights(policy)
    assert before and all(torch.equal(before[key], after[key]) for key in before)
    changed = [not torch.equal(trained[key], value) for key, value in policy.state_dict().items()]
    assert all(changed)


@pytest.mark.parametrize(
    ("micro_batch_size", "dtype"),
    [(1, torch.float32), (3, torch.float32), (8, torch.float32), (8, torch.bfloat16)],
)
def test_the_ratio_is_one_before_the_first_update(
    tiny_policy: MakePolicy, micro_batch_size: int, dtype: torch.dtype
) -> None:
    policy = tiny_policy(dtype=dtype)
    task = make_task(policy)
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[1]] * 5
    generators = [task.generator("rollout", 0, 0, image) for image in range(8)]
    trajectories = rollout(policy, prompts, generators)
    orders = replay.update_orders(
        task.generator("replay"), 8, STEPS, updates=1, micro_batch_size=micro_batch_size
    )
    seen = 0
    for trajectory, step in orders[0].batches:
        transitions = replay.gather(policy, trajectories, trajectory, step)
        log_density, noise = replay.current_density(policy, transitions, "mean")
        assert (log_density - transitions.log_density).abs().max() < 1e-6
        torch.testing.assert_close(noise, transitions.noise_prediction, rtol=1e-4, atol=1e-5)
        seen += len(step)
    assert seen == orders[0].transitions == 8 * STEPS


def test_every_transition_is_visited_once() -> None:
    source = torch.Generator().manual_seed(0)
    orders = replay.update_orders(source, 7, 5, updates=2, micro_batch_size=3)
    visited = [pair for order in orders for batch in order.batches for pair in pairs(batch)]
    assert sorted(visited) == [(i, k) for i in range(7) for k in range(5)]
    assert [order.transitions for order in orders] == [20, 15]
    assert max(len(step) for order in orders for _, step in order.batches) <= 3
    mixed = [step for _, step in orders[0].batches if len(step) > 1]
    assert any(len(step.unique()) > 1 for step in mixed)


def test_shared_timesteps_make_micro_batches_of_one_timestep() -> None:
    source = torch.Generator().manual_seed(0)
    orders = replay.update_orders(
        source, 7, 5, updates=1, micro_batch_size=4, shared_timesteps=True
    )
    assert all(len(step.unique()) == 1 for _, step in orders[0].batches)
    visited = [
        pair for i, k in orders[0].batches for pair in zip(i.tolist(), k.tolist(), strict=True)
    ]
    assert len(set(visited)) == 35


def test_more_updates_than_trajectories_are_refused() -> None:
    with pytest.raises(ValueError, match="9 updates a round, but only 8"):
        replay.update_orders(torch.Generator(), 8, 5, updates=9, micro_batch_size=3)


@pytest.mark.parametrize("name", ["alignprop", "dag", "ddpo", "ddpo-sf"])
def test_gradients_do_not_depend_on_the_micro_batch(tiny_policy: MakePolicy, name: str) -> None:
    gradients = []
    for size in (4, 8):
        policy = tiny_policy()
        options: dict[str, Any] = {"truncation": "random-per-step"} if name == "alignprop" else {}
        options |= {} if name == "ddpo-sf" else {"updates_per_round": 1}
        method: Any = make_method(
            name, make_task(policy), micro_batch_size=size, gradient_clip=1e9, **ROUND, **options
        )
        if name == "dag":
            method.flow.optimizer.gradient_clip = 1e9
        method.step()
        gradients.append(gradient_of(method.optimizer))
        if name == "dag":
            gradients[-1] += gradient_of(method.flow.optimizer)
    for a, b in zip(*gradients, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("tracker", [False, True])
def test_a_resumed_run_is_the_same_bit_for_bit(
    tiny_policy: MakePolicy, name: str, tracker: bool
) -> None:
    options: dict[str, Any] = dict(ROUND)
    if name in ("ddpo", "ddpo-sf"):
        options |= {"advantage": "per_prompt_tracker", "tracker_min_count": 5} if tracker else {}
    elif name == "alignprop":
        options |= {"truncation": "random-per-trajectory"} if tracker else {}
    else:
        options |= {"reward_unit": "initial_std"} if tracker else {}
    policy = tiny_policy()
    method = make_method(name, make_task(policy), **options)
    assert method.rounds == 2
    method.step()
    saved, weights_then = method.state_dict(), policy.state_dict()
    straight = method.step()
    again = tiny_policy()
    resumed = make_method(name, make_task(again), **options)
    resumed.load_state_dict(saved)
    again.load_state_dict(weights_then)
    assert resumed.step() == straight
    assert policy.state_dict().keys() == again.state_dict().keys()
    for key, value in policy.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_methods_share_prompts_and_noise(tiny_policy: MakePolicy) -> None:
    means = {}
    for name in TRAINED:
        single = {} if name == "ddpo-sf" else {"updates_per_round": 1}
        method = make_method(name, make_task(tiny_policy(), seed=3), **ROUND, **single)
        means[name] = method.step()
    rewards = {name: metrics["reward_mean"] for name, metrics in means.items()}
    # AlignProp scores unrounded pictures.
    assert max(rewards.values()) - min(rewards.values()) < 1e-3, rewards
    assert rewards["dag"] == rewards["ddpo"] == rewards["ddpo-sf"] == rewards["dag-kl"]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_alignprop_samples_what_a_rollout_samples(tiny_policy: MakePolicy, eta: float) -> None:
    policy = tiny_policy(eta=eta)
    prompts = list(PROMPTS)
    task = make_task(policy)

    def generators() -> list[torch.Generator]:
        return [task.generator("rollout", 0, slot, 0) for slot in range(len(prompts))]

    config = AlignPropConfig(truncation="random-per-step")
    carries = gradient_steps(config, STEPS, len(prompts), torch.Generator().manual_seed(0))
    ours = sample_with_gradient(policy, prompts, generators(), carries)
    theirs = sample(policy, prompts, generators())
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TRAINED)
def test_a_budget_below_one_round_is_refused(tiny_policy: MakePolicy, name: str) -> None:
    method = make_method(name, make_task(tiny_policy(), images=7), **ROUND)
    with pytest.raises(ValueError, match="7 images is less than one round of 8"):
        _ = method.rounds


def test_prompts_of_a_round(tiny_policy: MakePolicy) -> None:
    task = make_task(tiny_policy())
    for round_index in range(5):
        drawn = sampling.draw_prompts(task, round_index, 3, "without_replacement")
        assert sorted(drawn) == sorted(PROMPTS)
        assert drawn == sampling.draw_prompts(task, round_index, 3, "without_replacement")
    seven = sampling.draw_prompts(task, 0, 7, "without_replacement")
    assert {seven.count(prompt) for prompt in PROMPTS} == {2, 3}
    many = sampling.draw_prompts(task, 0, 300, "independent")
    assert all(60 < many.count(prompt) < 140 for prompt in PROMPTS)


def pairs(batch: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[int, int]]:
    """(trajectory, step) of each transition of a micro-batch."""
    return list(zip(batch[0].tolist(), batch[1].tolist(), strict=True))


def weights(policy: LatentDiffusion) -> dict[str, torch.Tensor]:
    """Copies of all tensors that must never change."""
    modules: dict[str, Any] = {
        "unet": policy.unet,
        "vae": policy.vae,
        "text": policy.text_encoder,
    }
    return {
        f"{part}.{name}": value.detach().clone()
        for part, module in modules.items()
        for name, value in module.state_dict().items()
        if "lora" not in name
    }
