"""What holds for every method that trains: the package's checks, and costs counted by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import methods
from benchmark.conformance import hard_rewards, runs, together
from benchmark.conformance import methods as checks
from benchmark.conformance.checks import Check, NotApplicable
from benchmark.conformance.methods import METHOD_CHECKS
from benchmark.conformance.trial import Trial
from benchmark.conformance.watch import Watch
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.rollout import sample
from methods import replay, sampling
from methods.alignprop import AlignPropConfig, gradient_steps, sample_with_gradient
from methods.ddpo import DdpoConfig
from tests.how_we_know import Record
from tests.methods.conftest import PROMPTS, ROUND, STEPS, available, make_method, make_task
from tests.methods.point import PointPolicy

MakePolicy = Callable[..., LatentDiffusion]
TRAINED = [name for name, kind in methods.registry().items() if kind.trains]
IMAGES = 8
PASS = 2 * IMAGES * STEPS
"""UNet samples of one guided pass over a round."""
REPEATED = IMAGES - ROUND["prompts_per_round"]
"""Images of a round that start from the same prompt and x_T as another."""
COUNTS: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("ddpo-sf", {}, {"unet_forward": 2 * PASS, "unet_backward": PASS, "optimizer_steps": 1}),
    ("ddpo", {}, {"unet_forward": 3 * PASS, "unet_backward": 2 * PASS, "optimizer_steps": 2}),
    (
        "ddpo",
        {"inner_epochs": 1, "updates_per_round": 2},
        {"unet_forward": 2 * PASS, "unet_backward": PASS, "optimizer_steps": 2},
    ),
    (
        "ddpo",
        {"guidance_in_training": False, "inner_epochs": 1},
        {"unet_forward": PASS + PASS // 2, "unet_backward": PASS // 2},
    ),
    ("ddpo", {"timestep_fraction": 0.5}, {"unet_backward": PASS}),
    *[
        (
            name,
            {},
            {
                "unet_forward": 2 * PASS,
                "unet_backward": PASS,
                "vae_decode": IMAGES * (STEPS + 1),
                "reward_calls": IMAGES * (STEPS + 1),
                "optimizer_steps": updates,
            },
        )
        for name, updates in (("dag", 2), ("dag-kl", 1))
    ],
    *[
        (
            name,
            {"initial_noise": "shared"},
            {
                "unet_forward": 2 * (PASS - REPEATED),
                "unet_backward": PASS,
                "vae_decode": IMAGES * (STEPS + 1) - REPEATED,
                "reward_calls": IMAGES * (STEPS + 1) - REPEATED,
            },
        )
        for name in ("dag", "dag-kl")
    ],
    ("ddpo", {"initial_noise": "shared"}, {"unet_forward": 3 * PASS - 2 * REPEATED}),
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
            "reward_gradient_calls": IMAGES,
            "optimizer_steps": 2,
        },
    ),
    ("trl-ddpo", {}, {"unet_forward": 2 * PASS, "unet_backward": PASS, "optimizer_steps": 2}),
    (
        "trl-alignprop",
        {"last_steps": 3},
        {
            "unet_forward": PASS + 2 * IMAGES * 3,
            "unet_backward": 2 * IMAGES * 3,
            "reward_gradient_calls": IMAGES,
            "optimizer_steps": 2,
        },
    ),
]


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("ddpo", {"advantage": "per_prompt_tracker", "tracker_min_count": 5}),
    ("ddpo-sf", {"advantage": "per_prompt_tracker", "tracker_min_count": 5}),
    ("alignprop", {"truncation": "random-per-step"}),
    ("alignprop", {"truncation": "random-per-trajectory"}),
    ("dag", {"reward_unit": "initial_std"}),
    ("dag", {"fresh_rewards": True, "flow_levels": "learned"}),
    ("dag-kl", {"reward_unit": "initial_std"}),
    ("trl-ddpo", {"advantage": "per_prompt_tracker", "tracker_min_count": 5}),
    ("trl-alignprop", {"truncation": "random-per-step"}),
]
"""Options that keep more state or draw more noise than the defaults."""
OF_THE_NETWORK: list[Check[Trial]] = [
    checks.trained_weights,
    checks.ratio_float32,
    checks.ratio_bfloat16,
    checks.accumulation,
    runs.resuming,
    runs.evaluation,
]
"""Checks in which a real network may differ from the tiny one."""


def conforms(check: Check[Trial], trial: Trial, on: str, evidence: Record) -> None:
    """The check is passed, or does not apply for a reason that the method declares."""
    try:
        found = check.find(trial)
    except NotApplicable:
        kind = trial.kind
        assert {
            checks.accumulation.name: not kind.micro_batch_invariant,
            checks.ratio_bfloat16.name: not kind.on_policy_in_half_precision,
            hard_rewards.whole_numbers.name: kind.needs_reward_gradient,
            together.two_processes.name: not kind.several_processes,
        }[check.name]
        return
    assert found.figure <= found.tolerance, found.problem
    evidence(f"every method, on {on}: {check.name}", found.figure, found.tolerance, check.formula)


@pytest.mark.parametrize("check", list(METHOD_CHECKS), ids=lambda check: check.find.__name__)
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_conforms(name: str, check: Check[Trial], evidence: Record) -> None:
    conforms(check, Trial(available(name)), "the built-in model", evidence)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_options_that_keep_state_resume(
    name: str, options: dict[str, Any], evidence: Record
) -> None:
    trial = Trial(available(name), options=options)
    conforms(runs.resuming, trial, "the built-in model with options that keep state", evidence)


@pytest.mark.parametrize("check", OF_THE_NETWORK, ids=lambda check: check.find.__name__)
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_conforms_on_stable_diffusion(
    tiny_policy: MakePolicy, name: str, check: Check[Trial], evidence: Record
) -> None:
    # Guidance multiplies the rounding of both branches, and 256 dimensions average little away.
    policy = functools.partial(tiny_policy, guidance_scale=1.5)
    # In float32 DAG's gradient differs between micro-batches by 0.7e-4 on one machine and 1.3e-4 on
    # another. A method that takes the mean of each micro-batch is wrong by 7 on the built-in model.
    trial = Trial(available(name), policy, gradient_rounding=1e-3)
    conforms(check, trial, "a small Stable Diffusion", evidence)


def test_a_first_update_revisits_every_step() -> None:
    for name in ("ddpo", "ddpo-sf", "dag", "dag-kl"):
        trial = Trial(available(name))
        method = trial.start()
        with Watch(method.policy) as watch:
            method.step()
        assert watch.revisited_steps == set(range(4)), name
        assert watch.revisits >= 4 * 4


@pytest.mark.parametrize(("name", "options", "expected"), COUNTS)
def test_a_round_costs_what_is_counted_by_hand(
    tiny_policy: MakePolicy,
    name: str,
    options: dict[str, Any],
    expected: dict[str, int],
    evidence: Record,
) -> None:
    policy = tiny_policy()
    make_method(name, make_task(policy), **ROUND, **options).step()
    expected = {"images": IMAGES, "vae_decode": IMAGES, "vae_encode": 0, **expected}
    expected = {"reward_calls": IMAGES, "reward_gradient_calls": 0, **expected}
    counts = policy.ledger.counts()
    assert {key: counts[key] for key in expected} == expected
    evidence(
        f"{name}: a round costs what is counted by hand",
        sum(abs(counts[key] - value) for key, value in expected.items()),
        0,
        "ledger and hand counts of UNet, decoder, reward and gradient calls, images, steps",
    )


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


def test_the_first_transitions_of_the_chain_alone() -> None:
    source = torch.Generator().manual_seed(0)
    orders = replay.update_orders(
        source, 7, 5, updates=2, micro_batch_size=3, timestep_fraction=0.6, timestep_draw="first"
    )
    visited = [pair for order in orders for batch in order.batches for pair in pairs(batch)]
    assert sorted(visited) == [(i, k) for i in range(7) for k in range(3)]
    assert [order.transitions for order in orders] == [12, 9]


def test_images_of_a_prompt_may_start_from_one_noise() -> None:
    """x_T is then no part of what tells them apart; the noise of the steps still is."""
    policy = PointPolicy()
    task = make_task(policy)
    spread = {}
    for kind in ("independent", "shared"):
        config = DdpoConfig(prompts_per_round=2, images_per_prompt=16, initial_noise=kind)
        trajectories, rewards = sampling.sample_round(task, 0, config)
        groups = trajectories.latents[0].view(2, 16, *policy.latent_shape)
        assert torch.equal(groups[0, 0], groups[0, 1]) == (kind == "shared")
        assert not torch.equal(groups[0, 0], groups[1, 0])
        assert len(trajectories.final.unique(dim=0)) == 32
        spread[kind] = float(rewards.view(2, 16).var(dim=1).mean())
        again, _ = sampling.sample_round(task, 0, config)
        assert torch.equal(again.latents, trajectories.latents)
    assert spread["shared"] < spread["independent"]


def test_more_updates_than_trajectories_are_refused() -> None:
    with pytest.raises(ValueError, match="9 updates a round, but only 8"):
        replay.update_orders(torch.Generator(), 8, 5, updates=9, micro_batch_size=3)


def test_methods_share_prompts_and_noise(tiny_policy: MakePolicy) -> None:
    means = {}
    for name in TRAINED:
        single = {} if name == "ddpo-sf" else {"updates_per_round": 1}
        method = make_method(name, make_task(tiny_policy(), seed=3), **ROUND, **single)
        means[name] = method.step()
    rewards = {name: metrics["reward_mean"] for name, metrics in means.items()}
    # AlignProp scores unrounded pictures; TRL's schedule is rounded.
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
