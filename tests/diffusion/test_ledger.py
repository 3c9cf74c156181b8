"""The cost ledger, by itself and as the policy fills it."""

from __future__ import annotations

import json
import time

import pytest
import torch

from diffusion.ledger import COUNTERS, Ledger
from diffusion.randomness import generator
from diffusion.rollout import rollout, sample
from tests.diffusion.conftest import MakePolicy

PROMPTS = ["a fox", "an owl", "a cat"]


def generators() -> list[torch.Generator]:
    return [generator(0, index) for index in range(len(PROMPTS))]


def changed(ledger: Ledger) -> dict[str, int]:
    return {name: count for name, count in ledger.counts().items() if count}


def test_counts_start_at_zero_and_add_up() -> None:
    ledger = Ledger()
    assert ledger.counts() == dict.fromkeys(COUNTERS, 0)
    ledger.add("reward_calls", 3)
    ledger.add("reward_calls", 2)
    assert ledger.reward_calls == 5
    assert changed(ledger) == {"reward_calls": 5}


def test_unknown_counters_are_refused() -> None:
    ledger = Ledger()
    with pytest.raises(KeyError):
        ledger.add("unet_forwards", 1)
    with ledger.suspended(), pytest.raises(KeyError):
        ledger.add("unet_forwards", 1)
    with pytest.raises(AttributeError):
        ledger.unet_forwards  # noqa: B018


def test_suspended_counts_nothing_and_ends_after_an_error() -> None:
    ledger = Ledger()
    with ledger.suspended(), ledger.suspended():
        ledger.add("images", 1)
    with pytest.raises(RuntimeError), ledger.suspended():
        raise RuntimeError
    assert ledger.images == 0
    ledger.add("images", 1)
    assert ledger.images == 1


def test_nested_phases_are_disjoint() -> None:
    ledger = Ledger()
    start = time.perf_counter()
    with ledger.phase("evaluation"):
        time.sleep(0.02)
        with ledger.phase("reward"):
            time.sleep(0.03)
            with ledger.phase("evaluation"):
                time.sleep(0.01)
        time.sleep(0.02)
    elapsed = time.perf_counter() - start
    assert ledger.seconds["evaluation"] >= 0.05
    assert ledger.seconds["reward"] >= 0.03
    total = sum(ledger.seconds.values())
    assert total <= elapsed
    time.sleep(0.01)  # between phases no clock runs
    with ledger.phase("reward"):
        pass
    assert sum(ledger.seconds.values()) < total + 0.01


def test_a_phase_ends_after_an_error() -> None:
    ledger = Ledger()
    with pytest.raises(RuntimeError), ledger.phase("rollout"), ledger.phase("reward"):
        raise RuntimeError
    before = dict(ledger.seconds)
    time.sleep(0.01)
    with ledger.phase("loss"):
        pass
    assert ledger.seconds["rollout"] == before["rollout"]
    assert ledger.seconds["reward"] == before["reward"]


def test_state_is_plain_json_and_goes_on() -> None:
    ledger, other = Ledger(), Ledger()
    ledger.add("vae_decode", 4)
    with ledger.phase("reward"):
        pass
    other.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert other.counts() == ledger.counts()
    assert other.seconds == ledger.seconds
    other.add("vae_decode", 1)
    assert (other.vae_decode, ledger.vae_decode) == (5, 4)


def test_rollout_counts_both_branches_of_guidance(make_policy: MakePolicy) -> None:
    policy = make_policy(sampling_steps=5)
    rollout(policy, PROMPTS, generators(), batch_size=2)
    assert changed(policy.ledger) == {"unet_forward": 2 * 5 * 3, "images": 3}


def test_sampling_without_guidance_counts_one_branch(make_policy: MakePolicy) -> None:
    policy = make_policy(sampling_steps=5, guidance_scale=1.0)
    sample(policy, PROMPTS, generators())
    assert changed(policy.ledger) == {"unet_forward": 5 * 3, "images": 3}


def test_decoding_is_counted(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.decode(torch.zeros(3, 4, 8, 8))
    assert changed(policy.ledger) == {"vae_decode": 3}


def test_backward_is_counted_when_it_runs(make_policy: MakePolicy) -> None:
    policy = make_policy()
    latents, step = torch.ones(3, 4, 8, 8), torch.tensor([0, 1, 2])
    conditioning = policy.encode(PROMPTS)
    guided = policy.predict_noise(latents, step, conditioning).guided
    policy.predict_conditional_noise(latents, step, conditioning)  # never differentiated
    assert changed(policy.ledger) == {"unet_forward": 9}
    guided.mean().backward()
    assert changed(policy.ledger) == {"unet_forward": 9, "unet_backward": 6}
    policy.predict_conditional_noise(latents, step, conditioning).mean().backward()
    assert changed(policy.ledger) == {"unet_forward": 12, "unet_backward": 9}


def test_evaluation_is_not_counted(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with policy.ledger.suspended(), torch.no_grad():
        policy.decode(rollout(policy, PROMPTS, generators()).final)
    assert changed(policy.ledger) == {}
