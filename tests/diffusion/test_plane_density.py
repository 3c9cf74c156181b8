"""Densities by quadrature against a closed form."""

from __future__ import annotations

import torch

from diffusion.gaussian_mixture import RingMixture
from diffusion.plane_density import PlaneDensity


def test_a_ring_by_quadrature_is_the_ring_in_closed_form() -> None:
    ring, final = RingMixture(), 0.999
    model = PlaneDensity(lambda points: ring.log_density(points, final), final)
    for alpha in (0.005, 0.1, 0.5, 0.9, 0.99, 0.998):
        x = ring.sample(2000, alpha, torch.Generator().manual_seed(0))
        level = torch.full((2000,), alpha, dtype=torch.float64)
        scale = ((1 - level) / level).mean()
        noise = model.noise_mean(x, level) - ring.noise_mean(x, level)
        assert noise.square().mean().sqrt() < 5e-3, alpha
        mean, variance = model.clean_moments(x, level)
        exact_mean, exact_variance = ring.clean_moments(x, level)
        assert (mean - exact_mean).square().mean().sqrt() < 5e-3 * scale.sqrt() + 1e-4, alpha
        assert (variance - exact_variance).abs().mean() < 3e-2 * exact_variance.mean(), alpha
        covariance = model.clean_covariance(x, level) - ring.clean_covariance(x, level)
        assert covariance.abs().mean() < 3e-2 * exact_variance.mean(), alpha


def test_a_scaled_density_is_the_same() -> None:
    """A constant in the log-density cancels."""
    ring, level = RingMixture(), torch.tensor([0.5])
    x = ring.sample(100, 0.5, torch.Generator().manual_seed(0))
    one = PlaneDensity(lambda points: ring.log_density(points, 1.0))
    other = PlaneDensity(lambda points: ring.log_density(points, 1.0) + 300.0)
    torch.testing.assert_close(one.noise_mean(x, level), other.noise_mean(x, level))
