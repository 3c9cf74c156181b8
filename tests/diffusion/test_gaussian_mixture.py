"""The closed form, against automatic differentiation, Monte Carlo and quadrature."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.gaussian_mixture import RingMixture
from diffusion.kernel import clean_weight, make_schedule, standard_deviation, transition
from tests.methods.point import STABLE_DIFFUSION

LEVELS = [0.01, 0.3, 0.9, 0.999]


@pytest.fixture
def points() -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return 1.5 * torch.randn(64, 2, dtype=torch.float64, generator=source)


def test_each_coordinate_has_variance_one() -> None:
    for deviation in (0.1, 0.3, 0.6):
        ring = RingMixture(deviation=deviation)
        spread = ring.centres.square().mean(0) + deviation**2
        assert torch.allclose(spread, torch.ones(2, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("alpha", LEVELS)
def test_the_density_integrates_to_one(alpha: float) -> None:
    axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = RingMixture().log_density(grid, alpha).exp().sum() * 0.02**2
    assert mass == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("alpha", LEVELS)
def test_the_noise_prediction_is_the_score(alpha: float, points: torch.Tensor) -> None:
    ring = RingMixture()
    x = points.clone().requires_grad_()
    (score,) = torch.autograd.grad(ring.log_density(x, alpha).sum(), x)
    expected = -math.sqrt(1 - alpha) * score
    assert torch.allclose(ring.noise_mean(points, alpha), expected, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_moments_are_those_of_weighted_clean_samples(alpha: float) -> None:
    ring = RingMixture()
    clean = ring.sample(400_000, 1.0, torch.Generator().manual_seed(1))
    x = torch.tensor([[0.4, 0.5], [0.9, -0.2]], dtype=torch.float64)
    mean, variance = ring.clean_moments(x, alpha)
    covariance = ring.clean_covariance(x, alpha)
    for i in range(len(x)):
        distance = (x[i] - math.sqrt(alpha) * clean).square().sum(1)
        weight = torch.softmax(-distance / (2 * (1 - alpha)), 0)
        expected = (weight[:, None] * clean).sum(0)
        centred = clean - expected
        spread = torch.einsum("n,ni,nj->ij", weight, centred, centred)
        assert torch.allclose(mean[i], expected, atol=0.02)
        assert torch.allclose(covariance[i], spread, atol=0.01)
    assert torch.allclose(variance, covariance.diagonal(dim1=1, dim2=2).mean(1), atol=1e-12)


def test_levels_may_differ_between_points(points: torch.Tensor) -> None:
    ring = RingMixture()
    levels = torch.linspace(0.05, 0.95, len(points), dtype=torch.float64)
    together = ring.noise_mean(points, levels)
    apart = [ring.noise_mean(points[i : i + 1], float(levels[i])) for i in range(len(points))]
    assert torch.allclose(together, torch.cat(apart), atol=1e-12)


def test_the_wider_kernel_has_the_moments_of_the_true_transition() -> None:
    """Mean and variance of x_s given x_t by quadrature over x_s, in place of any formula."""
    ring, schedule = RingMixture(), make_schedule(STABLE_DIFFUSION, 20)
    axis = torch.linspace(-4, 4, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for index in (8, 15, 18):
        step = torch.tensor([index])
        alpha, previous = schedule.alpha(step), schedule.alpha_previous(step)
        x = torch.tensor([[0.7, 0.35]], dtype=torch.float64)
        ratio = float(alpha / previous)
        noising = -(x - math.sqrt(ratio) * grid).square().sum(1) / (2 * (1 - ratio))
        weight = torch.softmax(ring.log_density(grid, previous) + noising, 0)
        mean = (weight[:, None] * grid).sum(0)
        variance = (weight[:, None] * (grid - mean).square()).sum() / 2
        _, clean_variance = ring.clean_moments(x, alpha)
        gaussian = transition(
            schedule, step, x, ring.noise_mean(x, alpha), clean_variance=clean_variance
        )
        assert torch.allclose(gaussian.mean.double(), mean, atol=1e-4)
        assert float(gaussian.std) ** 2 == pytest.approx(float(variance), rel=1e-3)
        assert float(gaussian.std) > float(standard_deviation(schedule, step, 1.0))


def test_the_weight_of_the_clean_prediction_is_its_derivative() -> None:
    schedule = make_schedule(STABLE_DIFFUSION, 10)
    for eta in (0.0, 0.5, 1.0):
        step = torch.arange(10)
        latents = torch.full((10, 1), 0.3, dtype=torch.float64)
        alpha = schedule.alpha(step).unsqueeze(1)

        def mean(clean: float, x=latents, a=alpha, e=eta, s=step) -> torch.Tensor:
            noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
            return transition(schedule, s, x, noise, e).mean

        slope = (mean(1.0) - mean(0.0)).squeeze(1).double()
        assert torch.allclose(slope, clean_weight(schedule, step, eta), atol=1e-5)
