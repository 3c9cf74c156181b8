"""One full update of DAG-DB and DAG-KL against its equations, written out anew in NumPy.

Everything is recomputed in float64 from the stored latents alone: noise and clean predictions,
rewards, both log densities, flows, losses and, by central differences, the gradients of policy and
flow; then AdamW's step. The policy is known in closed form, so nothing is taken from the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from methods import replay, sampling
from tests.how_we_know import Record
from tests.methods.conftest import ROUND, gradient_of, make_method, make_task
from tests.methods.point import PointPolicy

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
T = np.array([801, 601, 401, 201, 1])
S = np.array([601, 401, 201, 1, 0])
SPREAD, BETA = 0.5, 20.0
WEIGHTS = np.array([1.0, -0.5, 0.25])
LAMBDA, KAPPA, CLIP, MICRO_BATCH = 0.7, 1.3, 0.02, 5
RATE, DECAY = 1e-2, 0.1


def reward(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """A weighted mean of the channels."""
    return (images.mean(dim=(2, 3)) * torch.tensor(WEIGHTS, dtype=images.dtype)).sum(1)


@dataclass(frozen=True)
class Parameters:
    """Data mean ``[3]`` of the policy, coefficients ``[5, 7]`` of the flow."""

    mean: np.ndarray
    flow: np.ndarray

    @classmethod
    def of(cls, method: Any) -> Parameters:
        network = method.flow.network
        coefficients = [network.linear, network.square, network.constant[:, None]]
        flow = torch.cat([c.detach() for c in coefficients], dim=1)
        mean = method.policy.mean.detach().flatten()
        return cls(mean.double().numpy(), flow.double().numpy())


def noise_prediction(mean: np.ndarray, k: int, x: np.ndarray) -> np.ndarray:
    a = ALPHAS[T[k]]
    return np.sqrt(1 - a) * (x - np.sqrt(a) * mean[:, None, None]) / (a * SPREAD**2 + 1 - a)


def normal(x: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    """Log density per dimension."""
    values = -((x - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)
    return values.mean(axis=(1, 2, 3))


def log_policy(mean: np.ndarray, k: int, x_t: np.ndarray, x_s: np.ndarray) -> np.ndarray:
    a, b = ALPHAS[T[k]], ALPHAS[S[k]]
    variance = (1 - b) / (1 - a) * (1 - a / b)
    noise = noise_prediction(mean, k, x_t)
    clean = (x_t - np.sqrt(1 - a) * noise) / np.sqrt(a)
    return normal(x_s, np.sqrt(b) * clean + np.sqrt(1 - b - variance) * noise, variance)


def log_noising(k: int, x_t: np.ndarray, x_s: np.ndarray) -> np.ndarray:
    ratio = ALPHAS[T[k]] / ALPHAS[S[k]]
    return normal(x_t, np.sqrt(ratio) * x_s, 1 - ratio)


def state_reward(mean: np.ndarray, k: int, x: np.ndarray) -> np.ndarray:
    """Of the picture predicted from a state, or of the final picture for k = 5."""
    if k < 5:
        a = ALPHAS[T[k]]
        x = (x - np.sqrt(1 - a) * noise_prediction(mean, k, x)) / np.sqrt(a)
    return (1 / (1 + np.exp(-x))).mean(axis=(2, 3)) @ WEIGHTS


def log_flow(flow: np.ndarray, k: int, x: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    if k == 5:
        return BETA * rewards
    channels = x.mean(axis=(2, 3))
    return channels @ flow[k, :3] + channels**2 @ flow[k, 3:6] + flow[k, 6] + BETA * rewards


@dataclass(frozen=True)
class Round:
    """Latents ``[6, n, 3, 2, 2]``, the data mean that sampled them, and the update's order."""

    x: np.ndarray
    sampled_by: np.ndarray
    order: list[tuple[np.ndarray, np.ndarray]]

    def transition(self, p: Parameters, i: int, k: int) -> tuple[float, float, float]:
        """delta, l_p and the regulariser of one transition."""
        x_t, x_s = self.x[k, i : i + 1], self.x[k + 1, i : i + 1]
        own = log_policy(p.mean, k, x_t, x_s)
        flows = [
            log_flow(p.flow, j, x, state_reward(self.sampled_by, j, x))
            for j, x in ((k, x_t), (k + 1, x_s))
        ]
        delta = flows[0] + own - log_noising(k, x_t, x_s) - flows[1]
        moved = noise_prediction(p.mean, k, x_t) - noise_prediction(self.sampled_by, k, x_t)
        return float(delta[0]), float(own[0]), float((moved**2).mean())

    def losses_db(self, p: Parameters, _: Parameters) -> float:
        """Mean of delta^2 + lambda L_reg."""
        pairs = [(i, k) for t, s in self.order for i, k in zip(t, s, strict=True)]
        parts = [self.transition(p, i, k) for i, k in pairs]
        return float(np.mean([delta**2 + LAMBDA * reg for delta, _, reg in parts]))

    def losses_kl(self, p: Parameters, held: Parameters) -> float:
        """Mean of flow, policy and regulariser; ``held`` are the parameters where the gradient
        is stopped."""
        total = []
        for trajectory, step in self.order:
            pairs = list(zip(trajectory, step, strict=True))
            now = [self.transition(p, i, k) for i, k in pairs]
            flow_only = [self.transition(replace(p, mean=held.mean), i, k)[0] for i, k in pairs]
            g = -np.array([self.transition(held, i, k)[0] for i, k in pairs])
            for index, (i, k) in enumerate(pairs):
                old = log_policy(self.sampled_by, k, self.x[k, i : i + 1], self.x[k + 1, i : i + 1])
                ratio = np.exp(now[index][1] - old[0])
                a = leave_one_out(g, index)
                policy = max(-a * ratio, -a * np.clip(ratio, 1 - CLIP, 1 + CLIP))
                total.append(flow_only[index] ** 2 + KAPPA * policy + LAMBDA * now[index][2])
        return float(np.mean(total))


def leave_one_out(g: np.ndarray, index: int) -> float:
    n = len(g) - 1
    centred = np.array([value - (g.sum() - value) / n for value in g])
    deviation = np.sqrt(np.delete(centred**2, index).sum() / n)
    return float(np.clip(centred[index] / (deviation + 1e-8), -5, 5))


def gradient(loss: Callable[[Parameters, Parameters], float], at: Parameters) -> np.ndarray:
    """Central differences in mean and flow, ``[3 + 35]``."""
    found, step = [], 1e-5
    for name in ("mean", "flow"):
        value = getattr(at, name)
        for index in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                ends.append(loss(replace(at, **{name: moved}), at))
            found.append((ends[0] - ends[1]) / (2 * step))
    return np.array(found)


def updated(name: str) -> tuple[Any, Round, Parameters, dict[str, float]]:
    """The method after one update, its round, the parameters before it, and its metrics."""
    options: dict[str, Any] = {}
    if name == "dag-kl":
        options = {"kappa": KAPPA, "ratio_clip": CLIP, "baseline_group": "micro_batch"}
    method: Any = make_method(
        name,
        make_task(PointPolicy(spread=SPREAD), reward=reward),
        micro_batch_size=MICRO_BATCH,
        regulariser_weight=LAMBDA,
        learning_rate=RATE,
        flow_learning_rate=RATE,
        weight_decay=DECAY,
        gradient_clip=1e9,
        flow_gradient_clip=1e9,
        **options,
        **ROUND,
    )
    network = method.flow.network
    with torch.no_grad():
        method.policy.mean.copy_(torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1))
        for index, coefficients in enumerate((network.square, network.constant)):
            source = torch.Generator().manual_seed(index)
            coefficients.copy_(0.3 * torch.randn(coefficients.shape, generator=source))
    trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
    rewards = method.flow.state_rewards(trajectories, terminal)
    order = replay.update_orders(
        torch.Generator().manual_seed(0), 8, 5, updates=1, micro_batch_size=MICRO_BATCH
    )[0]
    sampled_by = Parameters.of(method).mean
    with torch.no_grad():  # away from the rollout, so that ratio and regulariser count
        method.policy.mean.add_(torch.tensor([0.05, -0.1, 0.15]).view(3, 1, 1))
    before = Parameters.of(method)
    metrics = method.update(trajectories, rewards, BETA, order)
    x = trajectories.latents.double().numpy()
    batches = [(i.numpy(), k.numpy()) for i, k in order.batches]
    return method, Round(x, sampled_by, batches), before, metrics


@pytest.mark.parametrize("name", ["dag", "dag-kl"])
def test_one_update(name: str, evidence: Record) -> None:
    method, sampled, before, metrics = updated(name)
    loss = sampled.losses_db if name == "dag" else sampled.losses_kl
    evidence(
        f"{name}: loss of one update in NumPy",
        abs(metrics["loss"] / loss(before, before) - 1),
        1e-5,
        "loss of a whole update and its equations in NumPy, float64, relative",
    )

    expected = gradient(loss, before)
    parts = [gradient_of(method.optimizer)[0].flatten()]
    linear, square, constant = gradient_of(method.flow.optimizer)
    parts.append(torch.cat([linear, square, constant[:, None]], dim=1).flatten())
    for actual, own in zip(parts, (expected[:3], expected[3:]), strict=True):
        largest = np.abs(own).max()
        assert largest > 1e-2
        evidence(
            f"{name}: gradient of one update in NumPy",
            np.abs(actual.double().numpy() - own).max() / largest,
            1e-5,
            "gradients of policy and flow, central differences of the loss in NumPy, relative",
        )

    after = Parameters.of(method)
    start = np.concatenate([before.mean, before.flow.flatten()])
    # AdamW's first step: both moments are the gradient, corrected for having started at zero.
    stepped = start * (1 - RATE * DECAY) - RATE * expected / (np.abs(expected) + 1e-8)
    np.testing.assert_allclose(
        np.concatenate([after.mean, after.flow.flatten()]), stepped, rtol=0, atol=1e-5 * RATE + 1e-7
    )


def test_the_update_of_dag_kl_meets_every_branch() -> None:
    """Ratios inside the clip, beyond it, and beyond it where that is no gain."""
    _, sampled, before, _ = updated("dag-kl")
    seen = set()
    for trajectory, step in sampled.order:
        pairs = list(zip(trajectory, step, strict=True))
        g = -np.array([sampled.transition(before, i, k)[0] for i, k in pairs])
        for index, (i, k) in enumerate(pairs):
            x_t, x_s = sampled.x[k, i : i + 1], sampled.x[k + 1, i : i + 1]
            new, old = (log_policy(m, k, x_t, x_s) for m in (before.mean, sampled.sampled_by))
            ratio = np.exp(new - old)[0]
            outside = abs(ratio - 1) > CLIP
            seen.add((outside, outside and (leave_one_out(g, index) > 0) == (ratio > 1)))
    assert seen == {(False, False), (True, False), (True, True)}
