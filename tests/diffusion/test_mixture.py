"""The fitted network against the closed form, and the policy's interface."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from diffusion.kernel import transition
from diffusion.ledger import Ledger
from diffusion.mixture import WEIGHTS, MixturePolicy, Variance, load_mixture
from diffusion.mixture_training import errors
from diffusion.rollout import rollout, sample, sample_jointly
from results import density


def make(steps: int = 20, variance: Variance = "learned", **options) -> MixturePolicy:
    return load_mixture(ledger=Ledger(), sampling_steps=steps, variance=variance, **options)


def points(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


def total_variation(policy: MixturePolicy, n: int = 16384) -> float:
    """From p_base, of n points."""
    drawn = sample_jointly(policy, "", n, torch.Generator().manual_seed(0), 4096)
    grid = torch.from_numpy(density.grid_points())
    base = density.probabilities(policy.base_log_density(grid).numpy())
    return density.distance(density.histogram(drawn.double().numpy()), base).total_variation


def test_the_errors_are_those_of_the_model_file() -> None:
    found = errors(make().network, n=20_000)
    with safe_open(WEIGHTS, "pt") as stored:
        said = {name: float(value) for name, value in stored.metadata().items()}
    assert found == pytest.approx(said, rel=0.2)
    assert said["noise prediction"] < 0.02 and said["log variance"] < 0.03


def test_the_prediction_is_the_closed_form_at_every_step() -> None:
    policy = make(50)
    for index in (0, 10, 25, 40, 47, 49):
        step = torch.full((2000,), index)
        alpha = float(policy.schedule.alpha(step[:1]))
        x = policy.ring.sample(2000, alpha, torch.Generator().manual_seed(index)).float()
        noise = policy.predict_noise(x, step, policy.encode(["a"] * 2000)).guided
        exact = policy.ring.noise_mean(x, alpha)
        assert (noise - exact).square().mean().sqrt() < 0.03, index
        gaussian = policy.transition(step, x, noise)
        _, clean_variance = policy.ring.clean_moments(x, alpha)
        wanted = transition(policy.schedule, step, x, exact, clean_variance=clean_variance)
        assert (gaussian.std / wanted.std).log().abs().mean() < 0.02, index


def test_the_right_variance_lowers_the_error_and_so_do_more_steps() -> None:
    found = {
        (variance, steps): total_variation(make(steps, variance))
        for variance in ("posterior", "learned")
        for steps in (20, 50)
    }
    for steps in (20, 50):
        assert found["learned", steps] < found["posterior", steps] - 0.02
    for variance in ("posterior", "learned"):
        assert found[variance, 50] < found[variance, 20] - 0.01
    assert found["learned", 50] < 0.08


def test_the_variance_comes_from_the_call_that_predicted_the_noise() -> None:
    policy, x, step = make(), points(), torch.arange(6)
    conditioning = policy.encode(["a"] * 6)
    noise = policy.predict_noise(x, step, conditioning).guided
    together = policy.transition(step, x, noise)
    apart = policy.transition(step, x, noise)  # the remembered call was used up
    assert torch.equal(together.std, apart.std) and torch.equal(together.mean, apart.mean)
    assert policy.ledger.unet_forward == 6


def test_a_call_of_another_network_or_without_gradient_is_not_reused() -> None:
    policy, x, step = make(), points(), torch.arange(6)
    conditioning = policy.encode(["a"] * 6)
    with torch.no_grad():
        noise = policy.predict_noise(x, step, conditioning).guided
    assert policy.transition(step, x, noise).std.requires_grad
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
        noise = policy.predict_noise(x, step, conditioning).guided
        with policy.base():
            base = policy.transition(step, x, noise).std
        assert not torch.allclose(base, policy.transition(step, x, noise).std)


def test_gradients_reach_noise_and_variance() -> None:
    policy, x, step = make(), points(), torch.arange(6)
    noise = policy.predict_noise(x, step, policy.encode(["a"] * 6)).guided
    policy.transition(step, x, noise).std.sum().backward()
    last = policy.network.layers[-1].weight.grad
    assert isinstance(last, torch.Tensor)
    assert last[2].abs().max() > 0 and last[:2].abs().max() == 0


def test_calls_are_counted_in_samples() -> None:
    policy, x = make(4), points()
    policy.predict_noise(x, torch.zeros(6, dtype=torch.long), policy.encode(["a"] * 6))
    assert policy.ledger.unet_forward == 6
    noise = policy.predict_conditional_noise(x, torch.arange(6) % 4, policy.encode(["a"] * 6))
    noise.sum().backward()
    policy.decode(x)
    counts = policy.ledger.counts()
    assert (counts["unet_forward"], counts["unet_backward"], counts["vae_decode"]) == (12, 6, 6)


def test_base_is_the_untrained_model_whatever_was_trained() -> None:
    policy, x, step = make(), points(), torch.arange(6)
    conditioning = policy.encode(["a"] * 6)
    before = policy.predict_noise(x, step, conditioning).guided
    state = policy.state_dict()
    policy.load_state_dict({name: value + 0.1 for name, value in state.items()})
    assert not torch.allclose(policy.predict_noise(x, step, conditioning).guided, before)
    with policy.base():
        assert torch.equal(policy.predict_noise(x, step, conditioning).guided, before)
    policy.load_state_dict(state)
    assert torch.equal(policy.predict_noise(x, step, conditioning).guided, before)


def test_saved_weights_load(tmp_path: Path) -> None:
    policy = make()
    policy.load_state_dict({k: v + 0.1 for k, v in policy.state_dict().items()})
    policy.save_weights(tmp_path / "network")
    again = make(weights=tmp_path / "network" / "model.safetensors")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in policy.state_dict().items())


def test_a_rollout_samples_what_sample_does() -> None:
    policy = make(5)
    prompts = ["a"] * 4

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(4)]

    trajectories = rollout(policy, prompts, generators(), "sum")
    assert trajectories.latents.shape == (6, 4, 2)
    assert torch.allclose(trajectories.final, sample(policy, prompts, generators()), atol=1e-6)


def test_joint_samples_are_the_same_for_the_same_generator() -> None:
    def draw(n: int) -> torch.Tensor:
        return sample_jointly(make(3), "", n, torch.Generator().manual_seed(1), 4)

    assert draw(10).shape == (10, 2)
    assert torch.equal(draw(10), draw(10))
    assert torch.equal(draw(10)[:8], draw(8))


def test_a_new_flow_is_zero_and_differs_by_seed_inside() -> None:
    policy, x, step = make(), points(), torch.arange(6)
    flows = [policy.build_flow(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(flows[0](x, step, policy.encode(["a"] * 6)), torch.zeros(6))
    first = [next(iter(flow.parameters())) for flow in flows]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
