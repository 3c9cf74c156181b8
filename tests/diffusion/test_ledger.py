"""The cost ledger, by itself and as the policy fills it."""

from __future__ import annotations

import json
import time

import pytest
import torch

from diffusion.ledger import COUNTERS, PHASES, UNDIVIDED, Ledger, time_module
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
    with ledger.phase("loss"):
        time.sleep(0.02)
        with ledger.phase("reward"):
            time.sleep(0.03)
            with ledger.phase("loss"):
                time.sleep(0.01)
        time.sleep(0.02)
    elapsed = time.perf_counter() - start
    assert ledger.seconds["loss"] >= 0.05
    assert ledger.seconds["reward"] >= 0.03
    total = sum(ledger.seconds.values())
    assert total <= elapsed
    time.sleep(0.01)  # between phases no clock runs
    with ledger.phase("reward"):
        pass
    assert sum(ledger.seconds.values()) < total + 0.01


def test_a_phase_ends_after_an_error() -> None:
    ledger = Ledger()
    with pytest.raises(RuntimeError), ledger.phase("sample"), ledger.phase("reward"):
        raise RuntimeError
    before = dict(ledger.seconds)
    time.sleep(0.01)
    with ledger.phase("loss"):
        pass
    assert ledger.seconds["sample"] == before["sample"]
    assert ledger.seconds["reward"] == before["reward"]


class Ticks:
    """A clock that stands still unless told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


def test_phases_sum_to_the_time_with_the_rest_as_other(ticks: Ticks) -> None:
    ledger = Ledger()
    with ledger.phase("other"):
        ticks.pass_(1)
        with ledger.phase("sample"):
            ticks.pass_(2)
        with ledger.phase("loss"):
            ticks.pass_(4)
            with ledger.backward():
                ticks.pass_(8)
            ticks.pass_(16)
            assert ledger.seconds["loss"] == 20  # also while it runs
    assert ledger.seconds == {"sample": 2, "loss": 20, "backward": 8, "other": 1}
    assert sum(ledger.seconds.values()) == ticks.now
    assert list(ledger.seconds) == [name for name in PHASES if name in ledger.seconds]


@pytest.mark.parametrize("outer", UNDIVIDED)
def test_what_evaluation_decodes_is_evaluation(ticks: Ticks, outer: str) -> None:
    ledger = Ledger()
    with ledger.phase(outer):
        ticks.pass_(1)
        with ledger.phase("decode"), ledger.phase("reward"):
            ticks.pass_(2)
    assert ledger.seconds == {outer: 3}


def test_training_is_told_apart(ticks: Ticks) -> None:
    ledger, joules = Ledger(), iter([100.0, 107.0, 200.0, 203.0])
    ledger.energy = lambda: next(joules)
    for _ in range(2):
        with ledger.training():
            ticks.pass_(1)
            with ledger.phase("sample"):
                ticks.pass_(2)
        with ledger.phase("sample"):  # best-of-n, say
            ticks.pass_(4)
    assert ledger.training_seconds == {"sample": 4, "other": 2}
    assert ledger.seconds == {"sample": 12, "other": 2}
    assert ledger.joules == 10
    assert Ledger().joules is None


def test_time_inside_networks_is_told_apart(ticks: Ticks) -> None:
    ledger = Ledger()
    output = torch.zeros(1, requires_grad=True)
    inner = output * 1
    inner.register_hook(lambda _: ticks.pass_(4))
    outer = inner * 1
    with ledger.network("unet"):
        ticks.pass_(1)
        with ledger.network("vae"):
            ticks.pass_(2)
    ledger.follow("unet", outer)
    ticks.pass_(64)
    with ledger.backward():
        ticks.pass_(8)  # before the gradient reaches the network
        outer.backward()
        ticks.pass_(16)
    with ledger.suspended(), ledger.network("unet"):
        ticks.pass_(32)
    assert ledger.network_seconds == {"unet": 1 + 4 + 16, "vae": 2}
    assert ledger.seconds == {"backward": 28}


def test_a_module_is_timed_also_after_an_error(ticks: Ticks) -> None:
    class Slow(torch.nn.Module):
        def forward(self, fails: bool) -> torch.Tensor:
            ticks.pass_(3)
            if fails:
                raise RuntimeError
            return torch.zeros(1)

    ledger, slow = Ledger(), Slow()
    time_module(slow, lambda: ledger, "flow")
    slow(False)
    with pytest.raises(RuntimeError):
        slow(True)
    ticks.pass_(5)
    assert ledger.network_seconds == {"flow": 6}


def test_it_waits_for_the_gpu_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("here"))
    ledger = Ledger()
    with ledger.phase("sample"):
        pass
    assert not waited
    ledger.synchronise = True
    with ledger.phase("sample"):
        assert len(waited) == 1
    assert len(waited) == 2


def test_the_policy_times_its_networks(make_policy: MakePolicy) -> None:
    policy = make_policy()
    flow = policy.build_flow(generator(0, "flow"))
    latents, step = torch.ones(3, 4, 8, 8), torch.tensor([0, 1, 2])
    with policy.ledger.phase("loss"):
        conditioning = policy.encode(PROMPTS)
        prediction = policy.predict_noise(latents, step, conditioning)
        images = policy.decode(prediction.guided)
        loss = images.mean() + flow(latents, step, conditioning).mean()
        forward = policy.ledger.network_seconds
        with policy.ledger.backward():
            loss.backward()
    seconds, networks = policy.ledger.seconds, policy.ledger.network_seconds
    assert list(seconds) == ["decode", "loss", "backward"]
    assert list(networks) == ["unet", "vae", "text_encoder", "flow"]
    assert all(networks[name] > forward[name] for name in ("unet", "vae", "flow"))
    assert networks["text_encoder"] == forward["text_encoder"]
    assert 0.5 < sum(networks.values()) / sum(seconds.values()) < 1


def test_state_is_plain_json_and_goes_on() -> None:
    ledger, other = Ledger(), Ledger()
    ledger.add("vae_decode", 4)
    with ledger.training(), ledger.phase("reward"), ledger.network("scorer"):
        pass
    other.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert other.counts() == ledger.counts()
    assert other.seconds == ledger.seconds
    assert other.training_seconds == ledger.training_seconds
    assert other.network_seconds == ledger.network_seconds
    other.add("vae_decode", 1)
    assert (other.vae_decode, ledger.vae_decode) == (5, 4)


def test_what_an_earlier_process_spent_is_added() -> None:
    earlier, ledger = Ledger(), Ledger()
    earlier.load_state_dict(
        {
            "counts": {**earlier.counts(), "images": 3},
            "seconds": {"setup": 1.0, "sample": 2.0},
            "training_seconds": {"sample": 2.0},
            "network_seconds": {"unet": 1.5},
            "joules": None,
        }
    )
    ledger.load_state_dict({**ledger.state_dict(), "seconds": {"setup": 4.0}, "joules": 7.0})
    ledger.go_on(earlier.state_dict())
    assert ledger.images == 3
    assert ledger.seconds == {"setup": 5.0, "sample": 2.0}
    assert ledger.training_seconds == {"sample": 2.0}
    assert ledger.network_seconds == {"unet": 1.5}
    assert ledger.joules == 7.0
    ledger.go_on({**earlier.state_dict(), "joules": 1.0})
    assert ledger.joules == 8.0


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
