"""Levels of the log flow, fitted to a round in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion.rollout import Trajectories
from methods import replay, sampling
from tests.methods.conftest import ROUND, make_method, make_task
from tests.methods.point import PointPolicy

METHODS = ["dag", "dag-kl", "residual-db"]
BETA = 3.0


def residuals(method: Any, trajectories: Trajectories, rewards: torch.Tensor) -> torch.Tensor:
    """As the rollout left them, ``[T, n]``."""
    n, rows = len(trajectories), []
    for step in range(len(trajectories.timesteps)):
        t = replay.gather(method.policy, trajectories, torch.arange(n), torch.full((n,), step))
        log_flow, next_log_flow = method.flow.log_flows(t, rewards, BETA)
        rows.append(log_flow + t.log_density - method.log_reference(t) - next_log_flow)
    return torch.stack(rows).detach()


@pytest.mark.parametrize("name", METHODS)
def test_residuals_of_a_prompt_and_timestep_are_zero_on_average(name: str) -> None:
    method: Any = make_method(name, make_task(PointPolicy()), **ROUND)
    trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
    rewards = method.flow.state_rewards(trajectories, terminal)
    before = residuals(method, trajectories, rewards)
    method.flow.fit_levels(trajectories, rewards, BETA, method.log_reference)
    after = residuals(method, trajectories, rewards)
    prompts = list(dict.fromkeys(trajectories.prompts))
    assert len(prompts) > 1
    for prompt in prompts:
        own = torch.tensor([each == prompt for each in trajectories.prompts])
        assert before[:, own].mean(1).abs().max() > 1e-2
        torch.testing.assert_close(
            after[:, own],
            before[:, own] - before[:, own].mean(1, keepdim=True),
            rtol=1e-3,
            atol=1e-4,
        )
    assert method.flow.levels[-1].abs().max() == 0  # the images keep their rewards


@pytest.mark.parametrize("name", METHODS)
def test_every_round_fits_its_own(name: str) -> None:
    method: Any = make_method(name, make_task(PointPolicy(), 32), flow_levels="round", **ROUND)
    method.step()
    first = method.flow.levels.clone()
    method.step()
    assert first.shape == method.flow.levels.shape
    assert not torch.equal(first, method.flow.levels)
    learned: Any = make_method(name, make_task(PointPolicy(), 32), **ROUND)
    learned.step()
    assert learned.flow.levels is None


@pytest.mark.parametrize("name", METHODS)
def test_levels_need_the_rollout_s_rewards(name: str) -> None:
    with pytest.raises(ValueError, match="flow_levels 'round' needs the rollout's rewards"):
        make_method(
            name, make_task(PointPolicy()), flow_levels="round", fresh_rewards=True, **ROUND
        )
