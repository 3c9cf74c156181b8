"""Exact metrics of a method on a model in closed form: its samples against its declared target.

The target is a formula in the base model's density and the reward (``methods.interface.Target``);
here it becomes probabilities on the grid of ``results.density``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffusion.mixture import MixturePolicy
from diffusion.randomness import generator
from diffusion.rollout import sample_jointly
from methods import Target
from results import density
from results.density import Array
from results.records import DensityRecord
from rewards import Reward

BATCH = 8192


def draw(policy: MixturePolicy, n: int, seed: int, eta: float | None = None) -> Tensor:
    """n points of the policy ``[n, 2]`` at ``eta``, from the same noise for all; not counted."""
    ledger = policy.ledger
    with ledger.phase("evaluation"), ledger.suspended():
        source = generator(seed, "evaluation", "density")
        return sample_jointly(policy, "", n, source, BATCH, eta).cpu()


def log_densities(policy: MixturePolicy, reward: Reward | None) -> tuple[Array, Array]:
    """log p_base and the reward (zero where there is none) at the points of the grid."""
    points = torch.from_numpy(density.grid_points())
    base = policy.base_log_density(points).numpy()
    if reward is None:
        return base, np.zeros_like(base)
    return base, reward(points.float(), [""] * len(points)).double().numpy()


def target_grid(target: Target, base: Array, reward: Array) -> Array | None:
    """The target's probabilities of the cells; ``None`` where the method has none."""
    if not target.base and target.beta is None:
        return None
    log_density = base if target.base else np.zeros_like(base)
    return density.probabilities(log_density + (target.beta or 0.0) * reward)


def measure(
    points: Tensor, policy: MixturePolicy, reward: Reward | None, target: Target
) -> tuple[DensityRecord, dict[str, Array]]:
    """The exact metrics of points ``[n, 2]``, and the grids behind them by name."""
    log_base, values = log_densities(policy, reward)
    base, wanted = density.probabilities(log_base), target_grid(target, log_base, values)
    counts = density.histogram(points.double().numpy())
    sample = counts / counts.sum()
    to_base = density.distance(counts, base)
    to_target = None if wanted is None else density.distance(counts, wanted)
    covered, modes = density.modes_covered(sample, base if wanted is None else wanted)
    own_reward = target_reward = None
    if reward is not None:
        own_reward = float(reward(points, [""] * len(points)).double().mean())
        if wanted is not None:
            target_reward = density.expectation(wanted, values)
    record = DensityRecord(
        target=str(target),
        beta=target.beta,
        points=len(points),
        total_variation=None if to_target is None else to_target.total_variation,
        total_variation_floor=None if to_target is None else to_target.total_variation_floor,
        divergence=None if to_target is None else to_target.divergence,
        divergence_floor=None if to_target is None else to_target.divergence_floor,
        base_total_variation=to_base.total_variation,
        base_total_variation_floor=to_base.total_variation_floor,
        modes_covered=covered,
        modes=modes,
        reward=own_reward,
        target_reward=target_reward,
        entropy=density.entropy(sample),
        target_entropy=None if wanted is None else density.entropy(wanted),
        base_entropy=density.entropy(base),
        outside=density.outside(points.numpy()),
    )
    grids = {"sample": sample, "base": base} | ({} if wanted is None else {"target": wanted})
    return record, grids
