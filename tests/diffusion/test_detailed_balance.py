"""Detailed balance where everything is known: the target is a Gaussian in one dimension.

With x_0 ~ N(m, v), the flow F(x_t) = Z N(sqrt(alpha_t) m, alpha_t v + 1 - alpha_t) and the exact
posterior as policy satisfy F(x_t) p(x_s | x_t) = F(x_s) q(x_t | x_s) at every step.
"""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.kernel import Gaussian, log_density, make_schedule, noising, transition
from diffusion.randomness import generator
from tests.diffusion.schedules import STABLE_DIFFUSION
from tests.how_we_know import Record

SCHEDULE = make_schedule(STABLE_DIFFUSION, 50)
MEAN, DEVIATION = 0.7, 0.6
LOG_Z = 3.0


def marginal(alpha: torch.Tensor, n: int) -> Gaussian:
    """Distribution of a latent at ``alpha``, for n samples of one dimension."""
    variance = alpha * DEVIATION**2 + 1 - alpha
    mean = (alpha.sqrt() * MEAN).float().reshape(-1, 1).expand(n, 1)
    return Gaussian(mean, variance.sqrt().float().expand(n))


def posterior(step: torch.Tensor, latents: torch.Tensor) -> Gaussian:
    """Exact p(x_s | x_t) of the Gaussian target."""
    alpha, previous = SCHEDULE.alpha(step), SCHEDULE.alpha_previous(step)
    ratio, cleaner = alpha / previous, marginal(previous, len(latents))
    prior_variance = cleaner.std.double() ** 2
    gain = prior_variance * ratio.sqrt() / (ratio * prior_variance + 1 - ratio)
    innovation = latents.double() - ratio.sqrt()[:, None] * cleaner.mean.double()
    variance = prior_variance * (1 - gain * ratio.sqrt())
    return Gaussian((cleaner.mean + gain[:, None] * innovation).float(), variance.sqrt().float())


def noise_prediction(step: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """What a perfect denoiser predicts: E[eps | x_t]."""
    alpha = SCHEDULE.alpha(step)[:, None]
    mean = alpha.sqrt() * MEAN
    variance = alpha * DEVIATION**2 + 1 - alpha
    return ((1 - alpha).sqrt() / variance * (latents.double() - mean)).float()


def imbalance(
    step: torch.Tensor, latents: torch.Tensor, cleaner: torch.Tensor, policy: Gaussian
) -> torch.Tensor:
    """log F(x_t) + log p(x_s | x_t) - log q(x_t | x_s) - log F(x_s), ``[n]``."""
    n = len(latents)
    flow = LOG_Z + log_density(latents, marginal(SCHEDULE.alpha(step), n), "sum")
    next_flow = LOG_Z + log_density(cleaner, marginal(SCHEDULE.alpha_previous(step), n), "sum")
    forward = log_density(cleaner, policy, "sum")
    backward = log_density(latents, noising(SCHEDULE, step, cleaner), "sum")
    return flow + forward - backward - next_flow


def draw(index: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(step, x_t, noise) of n samples at a step."""
    step = torch.full((n,), index)
    random = generator(0, "balance", index)
    noise, more = torch.randn(2, n, 1, generator=random)
    return step, marginal(SCHEDULE.alpha(step), n).sample(noise), more


def test_the_exact_posterior_balances_at_every_step(evidence: Record) -> None:
    for index in range(SCHEDULE.steps):
        step, latents, noise = draw(index, 2000)
        policy = posterior(step, latents)
        delta = imbalance(step, latents, policy.sample(noise), policy)
        # Float32: an error of 1e-7 in x_t is 3e-6 of the smallest noising deviation, 0.029.
        evidence(
            "a Gaussian target balances at every step",
            delta.abs().max().item(),
            1e-4,
            "log F(x_t) + log p(x_s | x_t) - log q(x_t | x_s) - log F(x_s) = 0, float32, 50 steps",
        )


def test_a_wrong_flow_is_out_of_balance() -> None:
    step, latents, noise = draw(25, 2000)
    policy = posterior(step, latents)
    cleaner = policy.sample(noise)
    delta = imbalance(step, latents + 0.1, cleaner, policy)
    assert delta.abs().mean() > 1e-2


@pytest.mark.parametrize(
    ("timestep", "mean", "deviation", "tolerance"),
    [
        (981, 0.0, 4e-4, 1e-4),
        (421, 0.0, 0.017, 2e-3),
        (141, 0.01, 0.10, 0.015),
        (21, 0.75, 0.63, 0.04),
        (1, 0.09, 0.37, 0.03),
    ],
)
def test_fixed_variance_leaves_a_floor(
    timestep: int, mean: float, deviation: float, tolerance: float, evidence: Record
) -> None:
    """A perfect denoiser has the posterior's mean, but not its variance, last of all at the end."""
    index = SCHEDULE.timesteps.tolist().index(timestep)
    step, latents, noise = draw(index, 20_000)
    policy = transition(SCHEDULE, step, latents, noise_prediction(step, latents), eta=1.0)
    exact = posterior(step, latents)
    torch.testing.assert_close(policy.mean, exact.mean, rtol=1e-4, atol=1e-5)
    assert (policy.std < exact.std).all()
    delta = imbalance(step, latents, policy.sample(noise), policy)
    for statistic, measured, golden in (
        ("mean", delta.mean(), mean),
        ("deviation", delta.std(), deviation),
    ):
        evidence(
            f"what a perfect denoiser leaves out of balance at t = {timestep}, {statistic}",
            abs(measured.item() - golden),
            tolerance,
            f"{statistic} of delta with DDPM's variance on a Gaussian target and {golden:g}",
        )


def test_gradient_of_the_squared_imbalance_is_twice_that_of_the_divergence(
    evidence: Record,
) -> None:
    """On policy, E[grad delta^2] = 2 grad KL(p || F q / F), here by Monte Carlo for p's mean."""
    n = 200_000
    index = SCHEDULE.timesteps.tolist().index(501)
    step, latents, noise = draw(index, n)
    latents = latents[:1].expand(n, 1)
    exact = posterior(step, latents)
    off = 0.5 * exact.std[:1].item()
    mean = (exact.mean[:1] + off).requires_grad_()
    policy = Gaussian(mean.expand(n, 1), exact.std * 1.2)
    cleaner = Gaussian(policy.mean.detach(), policy.std).sample(noise)
    delta = imbalance(step, latents, cleaner, policy)
    (gradient,) = torch.autograd.grad(delta.square().mean(), mean)
    divergence = off / exact.std[0].item() ** 2  # d/dmu (mu - mu_exact)^2 / (2 variance)

    score = (cleaner - policy.mean.detach()) / policy.std[0] ** 2
    standard_error = (2 * delta.detach()[:, None] * score).std().item() / math.sqrt(n)
    assert standard_error < 0.02 * divergence
    evidence(
        "DAG's gradient is twice that of the KL divergence, in standard errors",
        abs(gradient.item() - 2 * divergence) / standard_error,
        4.0,
        "E[grad delta^2] = 2 grad KL(p || F q / F), 200000 samples",
    )
