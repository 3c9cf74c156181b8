"""Path KL against the log-density ratio whose expectation it is."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.kernel import Gaussian, log_density, make_schedule
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.path_kl import PathKl, has_path_kl, step_kl
from diffusion.randomness import generator
from diffusion.rollout import SampledStep, rollout, sample

PROMPTS = ["a cat", "a lion", "a fox"]


def gaussians() -> tuple[Gaussian, Gaussian]:
    random = torch.Generator().manual_seed(0)
    std = torch.tensor([0.5, 2.0])
    means = torch.randn(2, 2, 4, 3, 3, generator=random)
    return Gaussian(means[0], std), Gaussian(means[1], std)


def test_a_step_is_the_divergence_of_two_normal_distributions() -> None:
    own, base = gaussians()
    for i, value in enumerate(step_kl(own, base)):
        normals = [
            torch.distributions.Independent(
                torch.distributions.Normal(g.mean[i], g.std[i].expand(4, 3, 3)), 3
            )
            for g in (own, base)
        ]
        expected = torch.distributions.kl_divergence(*normals)
        torch.testing.assert_close(value, expected)


def test_a_step_is_the_mean_of_the_log_density_ratio() -> None:
    own, base = gaussians()
    random = torch.Generator().manual_seed(1)
    own, base = (Gaussian(g.mean[1:].expand(20000, -1, -1, -1), g.std[1:]) for g in (own, base))
    own, base = (Gaussian(g.mean, g.std.expand(20000)) for g in (own, base))
    x = own.sample(torch.randn(own.mean.shape, generator=random))
    ratio = log_density(x, own, "sum") - log_density(x, base, "sum")
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - step_kl(own, base)[0]) < 4 * error


def test_it_is_summed_over_the_policy_s_own_trajectory(policy: LatentDiffusion) -> None:
    weights = policy.state_dict()
    policy.load_state_dict({name: value + 0.05 for name, value in weights.items()})
    chosen = torch.tensor([True, False, True])
    watch, steps = PathKl(policy, chosen), list[SampledStep]()

    def both(taken: SampledStep) -> None:
        watch(taken)
        steps.append(taken)

    sample(policy, PROMPTS, [generator(0, "path", i) for i in range(3)], watch=both)
    expected = torch.zeros(3, dtype=torch.float64)
    for taken in steps:
        own = policy.predict_noise(taken.latents, taken.step, taken.conditioning).guided
        with policy.base():
            base = policy.predict_noise(taken.latents, taken.step, taken.conditioning).guided
        scale = _mean_per_noise(policy, int(taken.step[0]))
        expected += scale**2 * (own - base).detach().double().flatten(1).square().sum(1) / 2
    assert (expected > 0).all()
    torch.testing.assert_close(watch.nats().double(), expected[chosen], rtol=1e-3, atol=0)


def _mean_per_noise(policy: LatentDiffusion, step: int) -> float:
    """|d mean / d noise_prediction| / sigma, written out."""
    schedule, eta = policy.schedule, policy.eta
    index = torch.tensor([step])
    alpha, previous = schedule.alpha(index).item(), schedule.alpha_previous(index).item()
    variance = eta**2 * (1 - previous) / (1 - alpha) * (1 - alpha / previous)
    slope = math.sqrt(1 - previous - variance) - math.sqrt(previous * (1 - alpha) / alpha)
    return abs(slope) / math.sqrt(variance)


def test_watching_changes_no_sample_and_costs_a_forward_pass_a_step(
    policy: LatentDiffusion,
) -> None:
    generators = [[generator(0, "path", i) for i in range(3)] for _ in range(3)]
    watch = PathKl(policy, torch.tensor([True, False, False]))
    watched = sample(policy, PROMPTS, generators[0], watch=watch)
    before = policy.ledger.counts()["unet_forward"]
    assert watch.nats().tolist() == pytest.approx([0.0], abs=1e-6)
    branches = 1 if policy.guidance_scale == 1 else 2
    spent = policy.ledger.counts()["unet_forward"] - before
    assert spent == policy.schedule.steps * branches
    assert torch.equal(watched, sample(policy, PROMPTS, generators[1]))
    assert torch.equal(watched, rollout(policy, PROMPTS, generators[2]).final)


@pytest.mark.parametrize(("eta", "finite"), [(1.0, True), (0.5, True), (0.0, False)])
def test_without_noise_there_is_none(eta: float, finite: bool) -> None:
    config = {"set_alpha_to_one": False, "steps_offset": 1}
    assert has_path_kl(make_schedule(config, 5), eta) is finite
    assert not has_path_kl(make_schedule({"set_alpha_to_one": True}, 5), eta)
