"""Detailed balance where it can hold, what a fixed variance leaves of it, and what it moves."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from diffusion.kernel import log_density, noising
from diffusion.policy import Conditioning
from methods import replay, sampling
from methods.dag import detailed_balance_residual
from tests.how_we_know import Record
from tests.methods.conftest import make_method, make_task
from tests.methods.point import PointPolicy


def marginal(alpha: torch.Tensor, mean: float, variance: float) -> torch.distributions.Normal:
    """Distribution of the latent at ``alpha`` of data N(mean, variance), float64."""
    return torch.distributions.Normal(
        alpha.sqrt() * mean, (alpha * variance + 1 - alpha).double().sqrt()
    )


def test_the_residual_is_zero_on_the_exact_posterior_s_own_samples(evidence: Record) -> None:
    """The whole chain of Stable Diffusion at 50 steps, from samples of the posterior itself."""
    schedule = PointPolicy(steps=50).schedule
    alphas, m, v, log_z = schedule.alphas_cumprod, 0.7, 0.36, 1.3
    grid = [*schedule.timesteps.tolist(), 0]
    source = torch.Generator().manual_seed(0)
    largest = 0.0
    for t, s in itertools.pairwise(grid):
        before, after = marginal(alphas[t], m, v), marginal(alphas[s], m, v)
        first, second = torch.randn(2, 1000, generator=source, dtype=torch.float64)
        x_t = before.mean + before.stddev * first
        ratio = alphas[t] / alphas[s]
        precision = 1 / after.variance + ratio / (1 - ratio)
        centre = (after.mean / after.variance + ratio.sqrt() * x_t / (1 - ratio)) / precision
        posterior = torch.distributions.Normal(centre, precision.rsqrt())
        x_s = centre + precision.rsqrt() * second
        forward = torch.distributions.Normal(ratio.sqrt() * x_s, (1 - ratio).sqrt())
        delta = detailed_balance_residual(
            log_z + before.log_prob(x_t),
            log_z + after.log_prob(x_s),
            posterior.log_prob(x_s),
            forward.log_prob(x_t),
        )
        largest = max(largest, float(delta.abs().max()))
    evidence(
        "DAG's residual is zero on the exact posterior's samples",
        largest,
        1e-13,
        "log F(x_t) + l_p - l_q - log F(x_s) = 0 for data N(m, v), float64, 50 steps, on policy",
    )


class QuadraticFlow(nn.Module):
    """A log flow that holds the logarithm of any isotropic Gaussian of each step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(steps, 5))

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return (features(latents) * self.coefficients[step]).sum(1)


def features(latents: torch.Tensor) -> torch.Tensor:
    """``[n, 5]``: mean square, mean of each channel, one."""
    square = latents.square().mean(dim=(1, 2, 3))[:, None]
    return torch.cat([square, latents.mean(dim=(2, 3)), torch.ones_like(square)], dim=1)


class QuadraticPolicy(PointPolicy):
    """Pixels N(0, spread^2) with such a flow."""

    def build_flow(self, generator: torch.Generator) -> Any:
        return QuadraticFlow(self.schedule.steps)


def clean_latents(images: torch.Tensor) -> torch.Tensor:
    """The latents that the policy decoded to these pictures."""
    return torch.logit(images)


def own_log_density(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """log p of the data's own distribution, per dimension: with beta = 1 the target is the model
    as it is."""
    values = -clean_latents(images).square() / (2 * 0.25) - 0.5 * math.log(2 * math.pi * 0.25)
    return values.mean(dim=(1, 2, 3))


def all_transitions(method: Any) -> tuple[replay.Transitions, torch.Tensor]:
    """Those of a round, and the rewards of its states."""
    trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
    rewards = method.flow.state_rewards(trajectories, terminal)
    steps, n = len(trajectories.timesteps), len(trajectories)
    trajectory, step = torch.arange(n).repeat(steps), torch.arange(steps).repeat_interleave(n)
    return replay.gather(method.policy, trajectories, trajectory, step), rewards


def flow_method(policy: PointPolicy, **options: Any) -> Any:
    """DAG-DB whose flow network alone is to be trained, on its own density."""
    task = make_task(policy, images=128, reward=own_log_density)
    options = {"prompts_per_round": 2, "images_per_prompt": 64, **options}
    return make_method("dag", task, flow_learning_rate=0.05, weight_decay=0.0, **options)


def test_a_flow_alone_reaches_the_floor_of_a_fixed_variance(evidence: Record) -> None:
    """The policy stays the model as it is, with the exact mean and DDPM's variance. The residual
    is linear in this flow's coefficients, so its least square is known; and it is not above that
    of the exact flow, which is the data's distribution at each step."""
    policy = QuadraticPolicy(steps=10, spread=0.5)
    method = flow_method(policy, flow_gradient_clip=1e9)
    t, rewards = all_transitions(method)

    def loss() -> torch.Tensor:
        return method.losses(t, rewards, beta=1.0)[0].mean()

    start = float(loss().detach())
    adamw = method.flow.optimizer.adamw
    for iteration in range(600):
        loss().backward()
        method.flow.optimizer.step()
        adamw.param_groups[0]["lr"] = 0.05 * (1 - iteration / 600)
    trained = float(loss().detach())

    with torch.no_grad():
        method.flow.network.coefficients.zero_()
        flows = method.flow.log_flows(t, rewards, 1.0)
        log_policy, _ = replay.current_density(policy, t, "mean")
        backward = noising(policy.schedule, t.step, t.next_latents)
        log_noising = log_density(t.latents, backward, "mean").double()
        constant = detailed_balance_residual(*flows, log_policy, log_noising).double()
    rows = torch.zeros(len(t.step), 10, 5, dtype=torch.float64)
    index = torch.arange(len(t.step))
    rows[index, t.step] = features(t.latents.double())
    inner = t.step + 1 < 10
    rows[index[inner], t.step[inner] + 1] -= features(t.next_latents[inner].double())
    solution = torch.linalg.lstsq(rows.flatten(1), -constant, driver="gelsd").solution
    least = float((rows.flatten(1) @ solution + constant).square().mean())
    evidence(
        "a flow trained alone reaches the least square of the residual",
        max(0.0, trained / least - 1),
        0.02,
        "mean delta^2 after training phi and by least squares, the policy held, relative",
    )

    alpha, previous = policy.schedule.alpha(t.step), policy.schedule.alpha_previous(t.step)
    exact = [
        torch.distributions.Normal(0.0, (a * 0.25 + 1 - a).sqrt().view(-1, 1, 1, 1))
        .log_prob(x.double())
        .mean(dim=(1, 2, 3))
        for a, x in ((alpha, t.latents), (previous, t.next_latents))
    ]
    floor = detailed_balance_residual(exact[0], exact[1], log_policy.double(), log_noising)
    assert trained < float(floor.square().mean())
    assert trained < 0.3 * start


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_reward_linear_in_the_latent_moves_the_mean_its_way(direction: float) -> None:
    """With policy and flow trained together; the other channels have no part in the reward."""

    def reward(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return direction * clean_latents(images)[:, 0].mean(dim=(1, 2))

    policy = QuadraticPolicy(steps=10, spread=0.5)
    options = {
        "prompts_per_round": 2,
        "images_per_prompt": 32,
        "reward_unit": "initial_std",
        "flow_levels": "round",
    }
    task = make_task(policy, images=640, reward=reward)
    method = make_method("dag", task, learning_rate=0.03, **options)
    for _ in range(method.rounds):
        method.step()
    mean = policy.mean.detach().flatten()
    assert direction * mean[0] > 0.1
    assert direction * mean[0] > 2 * mean[1:].abs().max()
