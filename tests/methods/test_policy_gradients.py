"""DDPO's gradients against finite differences of its objective, written out in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.rollout import Trajectories
from methods import replay, sampling
from methods.ddpo import clipped_surrogate
from tests.how_we_know import Record, distance, relative_distance
from tests.methods.conftest import ROUND, gradient_of, make_method, make_task
from tests.methods.point import PointPolicy, ddim_log_density


def objective(
    policy: PointPolicy, mean: torch.Tensor, trajectories: Trajectories, advantage: torch.Tensor
) -> torch.Tensor:
    """Mean over transitions of -A log p, at a data mean ``[3, 1, 1]``."""
    losses = [
        -advantage.double()
        * ddim_log_density(policy, mean, k, trajectories.latents[k], trajectories.latents[k + 1])
        for k in range(policy.schedule.steps)
    ]
    return torch.stack(losses).mean()


def test_log_densities_are_those_of_the_normal_distribution(evidence: Record) -> None:
    policy = PointPolicy()
    task = make_task(policy)
    method: Any = make_method("ddpo-sf", task, **ROUND)
    for reduction, factor in (("mean", 1.0), ("sum", 12.0)):
        config = method.config.model_copy(update={"reduction": reduction})
        trajectories, _ = sampling.sample_round(task, 0, config)
        for k in range(policy.schedule.steps):
            expected = factor * ddim_log_density(
                policy,
                policy.mean.detach().double(),
                k,
                trajectories.latents[k],
                trajectories.latents[k + 1],
            )
            evidence(
                f"log densities of a round are DDIM's, {reduction} over dimensions",
                distance(trajectories.log_densities[k], expected),
                1e-4,
                "log p(x_s | x_t) and DDIM's formulas written out in float64",
            )


@pytest.mark.parametrize("name", ["ddpo-sf", "ddpo"])
def test_the_first_gradient_is_the_score_function_gradient(name: str, evidence: Record) -> None:
    policy = PointPolicy()
    task = make_task(policy)
    options = {"updates_per_round": 1} if name == "ddpo" else {}
    method: Any = make_method(name, task, gradient_clip=1e9, **ROUND, **options)
    trajectories, rewards = sampling.sample_round(task, 0, method.config)
    advantage = method.advantages(trajectories.prompts, rewards)
    assert advantage.abs().max() > 0.5

    step, at = 1e-4, policy.mean.detach().double()
    differences = []
    for channel in range(3):
        shift = torch.zeros_like(at)
        shift[channel] = step
        higher = objective(policy, at + shift, trajectories, advantage)
        lower = objective(policy, at - shift, trajectories, advantage)
        differences.append((higher - lower) / (2 * step))

    if name == "ddpo":
        order = replay.update_orders(
            torch.Generator().manual_seed(0), 8, 5, updates=1, micro_batch_size=8
        )[0]
        method.update(trajectories, advantage, order)
    else:
        method.update(trajectories, advantage)
    gradient = gradient_of(method.optimizer)[0].flatten().double()
    expected = torch.stack(differences)
    assert expected.abs().max() > 1e-3
    evidence(
        f"{name}: first gradient against finite differences",
        relative_distance(gradient, expected),
        2e-3,
        "grad of mean(-A log p) and (J(m + h) - J(m - h)) / 2h in float64, relative",
    )


def test_the_surrogate_stops_where_the_ratio_has_moved_far_enough() -> None:
    old = torch.zeros(4, dtype=torch.float64)
    moved = torch.tensor([0.2, 0.2, -0.2, -0.2], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    losses = clipped_surrogate(moved, old, advantage, clip=0.1)
    ratio = moved.detach().exp()
    assert losses.tolist() == pytest.approx([-1.1, float(ratio[1]), -float(ratio[2]), 0.9])
    losses.sum().backward()
    assert moved.grad is not None
    # Raising what is good beyond the clip, and lowering what is bad, earns nothing more.
    assert moved.grad.tolist() == pytest.approx([0.0, float(ratio[1]), -float(ratio[2]), 0.0])


def test_the_surrogate_agrees_with_finite_differences() -> None:
    source = torch.Generator().manual_seed(0)
    old, advantage = torch.randn(2, 16, generator=source, dtype=torch.float64)
    new = (old + 0.05 * torch.randn(16, generator=source, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda value: clipped_surrogate(value, old, advantage, clip=0.03), (new,)
    )


def test_every_inner_epoch_takes_each_transition_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"inner_epochs": 3, "updates_per_round": 2, "timestep_fraction": 1.0}
    method: Any = make_method("ddpo", make_task(PointPolicy()), **ROUND, **options)
    orders, update = [], method.update

    def watched(trajectories: Trajectories, advantage: Tensor, order: replay.Order) -> Any:
        pairs = [torch.stack(batch, 1) for batch in order.batches]
        orders.append([tuple(pair) for pair in torch.cat(pairs).tolist()])
        return update(trajectories, advantage, order)

    monkeypatch.setattr(method, "update", watched)
    method.step()
    passes = [orders[first] + orders[first + 1] for first in (0, 2, 4)]
    expected = [(trajectory, step) for trajectory in range(8) for step in range(5)]
    assert [sorted(each) for each in passes] == [expected] * 3
    assert len(orders) == 6 and len({tuple(each) for each in orders}) == 6
    assert method.policy.ledger.counts()["optimizer_steps"] == 6


def test_the_ratio_is_reported_for_the_first_and_last_update() -> None:
    method = make_method("ddpo", make_task(PointPolicy()), updates_per_round=4, **ROUND)
    metrics = method.step()
    assert metrics["log_ratio_first"] < 1e-6 < metrics["log_ratio_last"]
    assert 0 < metrics["clip_fraction_last"] <= 1
