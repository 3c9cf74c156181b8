"""Matched points, hypervolume and attainment against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.tradeoff import (
    attainment_surface,
    diversity_at_reward,
    hypervolume,
    reward_at_diversity,
)

REWARD = [0.0, 1.0, 0.5, 2.0]
DIVERSITY = [1.0, 0.8, 0.9, 0.2]


@pytest.mark.parametrize(
    ("level", "expected"), [(0.0, 1.0), (-1.0, 1.0), (0.25, 0.95), (1.0, 0.8), (1.25, 0.55)]
)
def test_diversity_is_taken_where_the_reward_first_gets_there(
    level: float, expected: float
) -> None:
    assert diversity_at_reward(REWARD, DIVERSITY, level) == pytest.approx(expected)


@pytest.mark.parametrize(("level", "expected"), [(1.0, 0.0), (0.9, 0.5), (0.55, 1.25), (2.0, 0.0)])
def test_reward_is_taken_where_the_diversity_first_gets_there(
    level: float, expected: float
) -> None:
    assert reward_at_diversity(REWARD, DIVERSITY, level) == pytest.approx(expected)


def test_what_is_never_reached_is_nan() -> None:
    assert math.isnan(diversity_at_reward(REWARD, DIVERSITY, 2.5))
    assert math.isnan(reward_at_diversity(REWARD, DIVERSITY, 0.1))
    assert math.isnan(diversity_at_reward([0.0], [1.0], 0.1))
    assert math.isnan(diversity_at_reward([0.0, math.nan, 2.0], [1.0, 1.0, 1.0], 1.0))
    with pytest.raises(ValueError, match="equally long"):
        diversity_at_reward([0.0, 1.0], [1.0], 0.5)


def swept(points: np.ndarray) -> float:
    """Area by a sweep from the right, the textbook way."""
    area, height = 0.0, 0.0
    for x, y in sorted(points.clip(min=0).tolist(), reverse=True):
        area += x * max(0.0, y - height)
        height = max(height, y)
    return area


def test_hypervolume_of_boxes() -> None:
    assert hypervolume([(2.0, 3.0)]) == 6
    assert hypervolume([(2.0, 1.0), (1.0, 2.0), (0.5, 0.5)]) == 3
    assert hypervolume([(2.0, 1.0)], reference=(1.0, 0.5)) == 0.5
    assert hypervolume([(0.0, 1.0), (-1.0, 5.0)]) == 0 == hypervolume([])
    assert math.isnan(hypervolume([(1.0, math.nan)]))


def test_hypervolume_of_random_points_is_that_of_a_sweep() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        points = random.normal(0.5, 0.5, (random.integers(1, 9), 2))
        assert hypervolume(points) == pytest.approx(swept(points), abs=1e-12)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_attainment_is_that_of_counting(share: float) -> None:
    random = np.random.default_rng(1)
    curves = [random.random((6, 2)) for _ in range(4)]
    surface = attainment_surface(curves, share)
    for point in random.random((300, 2)):
        seeds = sum(bool((curve >= point).all(axis=1).any()) for curve in curves)
        assert bool((surface >= point).all(axis=1).any()) == (seeds >= 4 * share)
    assert (np.diff(surface[:, 0]) > 0).all() and (np.diff(surface[:, 1]) < 0).all()


def test_without_curves_nothing_is_attained() -> None:
    assert attainment_surface([]).shape == (0, 2)
