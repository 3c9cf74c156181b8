"""The level that each timestep's log flow begins at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

import methods
from methods import replay, sampling
from tests.methods.conftest import ROUND, make_method, make_task
from tests.methods.point import PointPolicy


def flows(method: Any, trajectories: Any, rewards: torch.Tensor, step: int) -> torch.Tensor:
    """``log F(x_s) - log F(x_t)`` at beta 2 of every trajectory's transition at a step."""
    n = len(trajectories)
    chosen = torch.arange(n), torch.full((n,), step)
    transitions = replay.gather(method.policy, trajectories, *chosen)
    log_flow, next_log_flow = method.flow.log_flows(transitions, rewards, 2.0)
    return (next_log_flow - log_flow).detach()


@pytest.mark.parametrize("name", ["dag", "dag-kl"])
def test_states_begin_balanced_on_average_and_images_keep_their_reward(name: str) -> None:
    centred: Any = make_method(name, make_task(PointPolicy()), centre_states=True, **ROUND)
    plain: Any = make_method(name, make_task(PointPolicy()), **ROUND)
    differences = {}
    for method in (centred, plain):
        trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
        rewards = method.flow.state_rewards(trajectories, terminal)
        for parameter in method.flow.network.parameters():
            parameter.data.zero_()
        assert method.flow.step_means[-1] == 0
        assert torch.equal(rewards[-1], terminal)
        differences[method] = [flows(method, trajectories, rewards, k) for k in range(5)]
    assert all(d.mean().abs() < 1e-6 for d in differences[centred])
    assert max(float(d.mean().abs()) for d in differences[plain]) > 1e-3
    for one, other in zip(differences[centred], differences[plain], strict=True):
        torch.testing.assert_close(one - one.mean(), other - other.mean())


def test_the_level_is_kept_and_restored() -> None:
    method: Any = make_method("dag", make_task(PointPolicy(), 32), centre_states=True, **ROUND)
    method.step()
    level = method.flow.step_means.clone()
    assert level.abs().max() > 1e-3
    method.step()
    assert torch.equal(method.flow.step_means, level)
    other: Any = make_method("dag", make_task(PointPolicy(), 32), centre_states=True, **ROUND)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.flow.step_means, level)


@pytest.mark.parametrize("name", ["dag", "dag-kl"])
def test_fresh_rewards_have_no_level(name: str) -> None:
    with pytest.raises(ValidationError, match="centre_states needs the rollout's rewards"):
        methods.get(name).Config(fresh_rewards=True, centre_states=True)
