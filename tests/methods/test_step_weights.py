"""Weights of transitions: which share each step has in the variance of a policy gradient."""

from __future__ import annotations

import pytest
import torch

from diffusion.kernel import log_density, make_schedule, score_scale, transition
from diffusion.randomness import generator
from methods import replay
from tests.diffusion.schedules import STABLE_DIFFUSION
from tests.methods.point import PointPolicy


def score_size(steps: int, index: int, eta: float) -> float:
    """Root mean square of d log p / d noise_prediction over draws of x_s, by autograd."""
    schedule, n = make_schedule(STABLE_DIFFUSION, steps), 4096
    latents = torch.randn(n, 1, generator=generator(0, "x", index))
    noise_prediction = torch.zeros(n, 1, requires_grad=True)
    step = torch.full((n,), index)
    gaussian = transition(schedule, step, latents, noise_prediction, eta)
    x_s = gaussian.sample(torch.randn(n, 1, generator=generator(0, "noise", index))).detach()
    log_density(x_s, gaussian, "sum").sum().backward()
    assert noise_prediction.grad is not None
    return float(noise_prediction.grad.square().mean().sqrt())


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_score_scale_is_the_size_of_the_score(steps: int, eta: float) -> None:
    schedule = make_schedule(STABLE_DIFFUSION, steps)
    for index in (0, steps // 2, steps - 2, steps - 1):
        expected = float(score_scale(schedule, torch.tensor([index]), eta)[0])
        assert score_size(steps, index, eta) == pytest.approx(expected, rel=0.05)


def test_one_late_step_dominates_the_variance_of_a_uniform_policy_gradient() -> None:
    scale = score_scale(make_schedule(STABLE_DIFFUSION, 10), torch.arange(10), 1.0)
    assert scale[8] == pytest.approx(8.32, abs=0.01)
    assert scale[8] ** 2 / scale.square().sum() > 0.85


def test_balanced_steps_have_the_same_share() -> None:
    policy = PointPolicy(steps=10)
    weights = replay.step_weights(policy, "balanced")
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    shares = weights.double() * score_scale(policy.schedule, torch.arange(10), policy.eta)
    torch.testing.assert_close(shares, shares[:1].expand(10))
    assert replay.step_weights(policy, "uniform").tolist() == [1.0] * 10
