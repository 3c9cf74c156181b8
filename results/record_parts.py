"""What several records have in common, and the parts they are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Counts(Record):
    """Work done in training, counted in samples (one image through one network once)."""

    unet_forward: int = 0
    unet_backward: int = 0
    vae_encode: int = 0
    vae_decode: int = 0
    reward_calls: int = 0
    reward_gradient_calls: int = 0
    images: int = 0
    """Images sampled in training: trajectories run to the end."""
    optimizer_steps: int = 0


class DensityRecord(Record):
    """Exact metrics of a model in closed form: of its samples on a grid, see ``results.density``.

    Metrics "of the target" are None for a method that declares none.
    """

    target: str
    """Formula of the distribution that the method is to reach."""
    beta: float | None
    """Of the target, for log-densities summed over dimensions."""
    points: int
    """How many were drawn, all on the CPU from noise of their own."""
    total_variation: float | None
    """From the target, in [0, 1]."""
    total_variation_floor: float | None
    """Of as many points of the target itself."""
    divergence: float | None
    """KL to the target, nats."""
    divergence_floor: float | None
    base_total_variation: float
    """From the base model's exact density."""
    base_total_variation_floor: float
    modes_covered: int
    """Modes of the target, or without one of the base density, that hold half of their due."""
    modes: int
    reward: float | None
    """Mean of the reward trained on; None for ``base``."""
    target_reward: float | None
    entropy: float
    """Differential entropy in nats."""
    target_entropy: float | None
    base_entropy: float
    """Of the base model's exact density."""
    outside: float
    """Share of the points off the grid."""
