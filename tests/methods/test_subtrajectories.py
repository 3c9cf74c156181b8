"""Subtrajectory balance: the residuals of consecutive transitions summed before the square."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from methods import replay, sampling
from methods.dag import DagConfig
from tests.how_we_know import Record, distance, relative_distance
from tests.methods.conftest import ROUND, make_method, make_task
from tests.methods.point import PointPolicy


def orders_of(seed: int = 0, **options: Any) -> list[replay.Order]:
    source = torch.Generator().manual_seed(seed)
    chosen = {"length": 4, "updates": 2, "micro_batch_size": 8, **options}
    return replay.subtrajectory_orders(source, 7, 10, **chosen)


def subtrajectories(order: replay.Order) -> list[list[tuple[int, int]]]:
    """(trajectory, step) of each subtrajectory."""
    found = []
    for (trajectory, step), lengths in zip(order.batches, order.lengths, strict=True):
        pairs = list(zip(trajectory.tolist(), step.tolist(), strict=True))
        for length in lengths:
            found.append(pairs[:length])
            pairs = pairs[length:]
        assert not pairs
    return found


@pytest.mark.parametrize("length", [1, 3, 4, 10, 99])
@pytest.mark.parametrize("seed", range(5))
def test_every_transition_is_part_of_one_subtrajectory(length: int, seed: int) -> None:
    orders = orders_of(seed, length=length, micro_batch_size=12)
    found = [piece for order in orders for piece in subtrajectories(order)]
    assert sorted(pair for piece in found for pair in piece) == [
        (i, k) for i in range(7) for k in range(10)
    ]
    for piece in found:
        assert 1 <= len(piece) <= length
        assert len({i for i, _ in piece}) == 1
        steps = [k for _, k in piece]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert [order.transitions for order in orders] == [40, 30]
    assert max(len(step) for order in orders for _, step in order.batches) <= 12


def test_cuts_differ_from_update_to_update() -> None:
    ends = [
        frozenset(piece[-1][1] for piece in subtrajectories(order))
        for seed in range(8)
        for order in orders_of(seed)
    ]
    assert len(set(ends)) > 1


def test_a_share_of_the_timesteps() -> None:
    for seed in range(5):
        orders = orders_of(seed, timestep_fraction=0.5)
        assert [order.transitions for order in orders] == [20, 15]
        assert all(len(pairs) <= 4 for order in orders for pairs in subtrajectories(order))
        assert sum(len(p) for order in orders for p in subtrajectories(order)) == 35
    first = orders_of(timestep_fraction=0.5, timestep_draw="first")
    steps = {k for order in first for piece in subtrajectories(order) for _, k in piece}
    assert steps == {0, 1, 2, 3, 4}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="8 updates a round, but only 7"):
        orders_of(updates=8)
    with pytest.raises(ValueError, match="micro-batches of 3 transitions, but subtraj.* of 4"):
        orders_of(micro_batch_size=3)
    with pytest.raises(ValidationError, match="above micro_batch_size"):
        DagConfig(subtrajectory_length=17)
    with pytest.raises(ValidationError, match="detach_next_flow needs subtrajectory_length 1"):
        DagConfig(subtrajectory_length=2, detach_next_flow=True)


def round_of(method: Any) -> tuple[Any, torch.Tensor]:
    trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
    return trajectories, method.flow.state_rewards(trajectories, terminal)


@pytest.mark.parametrize("name", ["dag", "residual-db"])
def test_the_flows_between_cancel(name: str, evidence: Record) -> None:
    """The loss of a piece from t to s is (log F(x_t) + sum l_p - sum l_q - log F(x_s))^2."""
    policy = PointPolicy(steps=6)
    method: Any = make_method(
        name, make_task(policy), **ROUND, subtrajectory_length=4, micro_batch_size=64
    )
    trajectories, rewards = round_of(method)
    with torch.no_grad():
        policy.mean.add_(0.1)
        for parameter in method.flow.network.parameters():
            parameter.add_(0.05)
    order = method.orders(len(trajectories), 6)[0]
    trajectory, step = order.batches[0]
    t = replay.gather(policy, trajectories, trajectory, step)
    balance, _ = method.losses(t, rewards, 20.0, order.lengths[0])
    found = [float(part.sum().detach()) for part in balance.split(order.lengths[0])]
    with torch.no_grad():
        log_policy, _ = replay.current_density(policy, t, "mean")
        log_ratio = log_policy - method.log_reference(t)
        log_flow, next_log_flow = method.flow.log_flows(t, rewards, 20.0)
    expected, weights, begin = [], method.step_weights[t.step], 0
    for length in order.lengths[0]:
        end = begin + length
        delta = log_flow[begin] + log_ratio[begin:end].double().sum() - next_log_flow[end - 1]
        expected.append(float(weights[begin:end].mean() * delta**2))
        begin = end
    assert max(order.lengths[0]) > 1
    evidence(
        f"{name}: of a subtrajectory the two ends' flows are left",
        distance(torch.tensor(found), torch.tensor(expected)),
        1e-4,
        "(sum of delta)^2 and (log F(x_t) + sum l_p - sum l_q - log F(x_s))^2",
    )


def gradients(micro_batch_size: int, length: int) -> list[torch.Tensor]:
    """Of policy and flow after one update of all transitions."""
    policy = PointPolicy(steps=6)
    options = {"updates_per_round": 1, "gradient_clip": 1e9, "flow_gradient_clip": 1e9}
    method: Any = make_method(
        "dag",
        make_task(policy),
        **{**ROUND, **options},
        subtrajectory_length=length,
        micro_batch_size=micro_batch_size,
    )
    trajectories, rewards = round_of(method)
    with torch.no_grad():
        policy.mean.add_(0.1)
    parameters = [*policy.parameters(), *method.flow.network.parameters()]
    for order in method.orders(len(trajectories), 6):
        for (trajectory, step), lengths in zip(order.batches, order.lengths, strict=True):
            t = replay.gather(policy, trajectories, trajectory, step)
            balance, _ = method.losses(t, rewards, 20.0, lengths)
            (balance.sum() / order.transitions).backward()
    return [parameter.grad.clone() for parameter in parameters]


@pytest.mark.parametrize("length", [3, 6])
def test_micro_batches_only_gather(length: int, evidence: Record) -> None:
    worst = max(
        relative_distance(one, other)
        for one, other in zip(gradients(6, length), gradients(64, length), strict=True)
    )
    evidence(
        "Subtrajectory balance: micro-batches change only how transitions are gathered",
        worst,
        1e-4,
        "gradients of an update in micro-batches of 6 and of 64 transitions, relative",
    )


def test_one_transition_is_detailed_balance() -> None:
    policy = PointPolicy(steps=6)
    method: Any = make_method("dag", make_task(policy), **ROUND)
    trajectories, rewards = round_of(method)
    order = method.orders(len(trajectories), 6)[0]
    assert not order.lengths
    t = replay.gather(policy, trajectories, *order.batches[0])
    plain, _ = method.losses(t, rewards, 20.0)
    single, _ = method.losses(t, rewards, 20.0, [1] * len(plain))
    assert torch.equal(plain, single)
