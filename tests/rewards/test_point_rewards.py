"""Rewards of points: the contract, the gradients, and targets that exist."""

from __future__ import annotations

import pytest
import torch

import rewards
from results import density
from rewards import Reward
from rewards.interface import RewardInputError

NAMES = [name for name, kind in rewards.registry().items() if kind.scores == "point"]


@pytest.fixture(params=NAMES)
def reward(request: pytest.FixtureRequest) -> Reward:
    return rewards.load(request.param)


@pytest.fixture
def points() -> torch.Tensor:
    return 1.5 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def grid() -> torch.Tensor:
    return torch.from_numpy(density.grid_points()).float()


def test_there_are_several() -> None:
    assert NAMES == ["point_bump", "point_linear", "point_modes"]


def test_one_fp32_score_a_point(reward: Reward, points: torch.Tensor) -> None:
    scores = reward(points.double(), [""] * 200)
    assert scores.shape == (200,) and scores.dtype == torch.float32
    alone = torch.cat([reward(points[i : i + 1], [""]) for i in range(200)])
    assert torch.allclose(scores, alone)
    assert torch.allclose(scores, reward.differentiable_score(points, [""] * 200), atol=1e-6)


def test_the_range_is_reached_and_not_left(reward: Reward) -> None:
    scores = reward(grid(), [""] * len(grid()))
    low, high = reward.range
    assert low is None and high is not None
    assert high - 0.01 < float(scores.max()) <= high


def test_gradients_are_those_of_finite_differences(reward: Reward, points: torch.Tensor) -> None:
    x = points.double().requires_grad_()
    reward.score(x, [""] * 200).sum().backward()
    assert x.grad is not None
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = 1e-6
        with torch.no_grad():
            up, down = (reward.score(points.double() + s * shift, []) for s in (1, -1))
        assert torch.allclose(x.grad[:, axis], (up - down) / 2e-6, atol=1e-5)


def test_the_exponential_is_a_distribution_on_the_grid(reward: Reward) -> None:
    values = reward(grid(), [""] * len(grid())).double().numpy()
    p = density.probabilities(2.0 * values)
    border = p.sum() - p[1:-1, 1:-1].sum()
    assert border < 5e-3


def test_modes_have_unequal_heights() -> None:
    tops = 1.35 * torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert rewards.load("point_modes")(tops, [""] * 4).tolist() == [1.5, 1.0, 0.75, 0.5]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (torch.zeros(2, 3, 8, 8), "shape"),
        (torch.zeros(2, 3), "shape"),
        (torch.zeros(0, 2), "shape"),
        (torch.zeros(2, 2, dtype=torch.int64), "floats"),
        (torch.tensor([[0.0, float("nan")]]), "NaN"),
    ],
)
def test_what_is_no_point_is_refused(reward: Reward, wrong: torch.Tensor, says: str) -> None:
    with pytest.raises(RewardInputError, match=says):
        reward(wrong, [""] * len(wrong))


def test_image_rewards_refuse_points() -> None:
    with pytest.raises(RewardInputError, match="shape"):
        rewards.load("colourfulness")(torch.zeros(2, 2), ["", ""])
