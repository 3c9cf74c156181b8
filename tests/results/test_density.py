"""Exact metrics against values known analytically."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results import density

CELL = 2 * density.HALF_WIDTH / density.CELLS


def gaussian(mean: tuple[float, float], deviation: float) -> np.ndarray:
    """log-density at the points of the grid."""
    offsets = density.grid_points() - np.array(mean)
    squares = (offsets**2).sum(axis=1)
    return -squares / (2 * deviation**2) - math.log(2 * math.pi * deviation**2)


def test_total_variation_and_divergence_of_two_gaussians() -> None:
    p = density.probabilities(gaussian((0.3, 0.0), 0.6))
    q = density.probabilities(gaussian((-0.3, 0.0), 0.6))
    # Along the line between the means: 2 Phi(distance / 2 sigma) - 1, and distance^2 / 2 sigma^2.
    # The border of the two is one of cells, so the grid loses nothing of the total variation.
    assert density.total_variation(p, q) == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=1e-4)
    assert density.divergence(p, q) == pytest.approx(0.5, rel=0.02)
    assert density.divergence(p, p) == density.total_variation(p, p) == 0


def test_entropy_and_expectation_of_a_gaussian() -> None:
    p = density.probabilities(gaussian((0.4, -0.2), 0.6))
    assert density.entropy(p) == pytest.approx(1 + math.log(2 * math.pi * 0.36), abs=0.03)
    x, y = density.grid_points().T
    assert density.expectation(p, x) == pytest.approx(0.4, abs=1e-3)
    assert density.expectation(p, y) == pytest.approx(-0.2, abs=1e-3)


def test_entropy_of_a_uniform_density_is_the_logarithm_of_its_area() -> None:
    flat = density.probabilities(np.zeros(len(density.grid_points())))
    assert density.entropy(flat) == pytest.approx(math.log(36))
    half = flat.copy()
    half[: density.CELLS // 2] = 0
    assert density.total_variation(2 * half, flat) == pytest.approx(0.5)
    assert density.divergence(2 * half, flat) == pytest.approx(math.log(2))


def test_the_constant_of_a_log_density_does_not_matter() -> None:
    log_density = gaussian((0.0, 0.0), 0.5)
    assert np.allclose(
        density.probabilities(log_density), density.probabilities(log_density - 1e4), rtol=1e-9
    )


def test_cells_of_no_probability_leave_the_divergence_finite() -> None:
    q = density.probabilities(gaussian((-2.0, 0.0), 0.02))
    p = density.probabilities(gaussian((2.0, 0.0), 0.5))
    assert 100 < density.divergence(p, q) < math.inf


def test_a_histogram_counts_all_points_first_axis_first() -> None:
    points = np.array([[2.9, 0.01], [2.9, 0.01], [-9.0, 9.0]])
    counts = density.histogram(points)
    middle = density.CELLS // 2
    assert counts.sum() == 3
    assert counts[-1, middle] == 2 and counts[0, -1] == 1
    assert density.outside(points) == pytest.approx(1 / 3)


def test_the_floor_is_the_expected_distance_of_exact_samples() -> None:
    """Half the sum of the mean absolute deviations of binomials (de Moivre's formula)."""
    n = 5000
    target = density.probabilities(gaussian((0.0, 0.0), 0.5))
    p = target.ravel()
    m = np.floor(n * p)
    deviation = 2 * (m + 1) * (1 - p) * stats.binom.pmf(m + 1, n, p)
    # E|X - np| = 2 (m + 1) (1 - p) pmf(m + 1) for m = floor(np)
    expected = 0.5 * deviation.sum() / n
    drawn = np.random.default_rng(3).multinomial(n, p).reshape(target.shape).astype(float)
    found = density.distance(drawn, target)
    assert found.total_variation_floor == pytest.approx(expected, rel=0.03)
    assert found.total_variation == pytest.approx(expected, rel=0.15)
    assert 0 < found.divergence_floor == pytest.approx(found.divergence, rel=0.3)


def ring(weights: tuple[float, ...]) -> np.ndarray:
    angles = 2 * np.pi * np.arange(len(weights)) / len(weights)
    parts = [
        w * np.exp(gaussian((1.6 * math.cos(a), 1.6 * math.sin(a)), 0.25))
        for w, a in zip(weights, angles, strict=True)
        if w
    ]
    return density.probabilities(np.log(np.sum(parts, axis=0)))


def test_modes_are_counted_by_their_basins() -> None:
    target = ring((1, 1, 1, 1, 1, 1))
    assert density.modes_covered(target, target) == (6, 6)
    assert density.modes_covered(ring((1, 0, 1, 0, 0, 0)), target) == (2, 6)
    assert density.modes_covered(ring((1, 1, 0.3, 1, 1, 1)), target) == (5, 6)
    small = ring((1, 1, 1, 0.01, 1, 1))  # below a hundredth: no mode
    assert density.modes_covered(target, small)[1] == 5


def test_basins_cover_the_grid_and_hold_their_share() -> None:
    target = ring((2, 1, 1, 1))
    basin = density.basins(target)
    held = [target[basin == k].sum() for k in range(4)]
    assert held == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.01)
