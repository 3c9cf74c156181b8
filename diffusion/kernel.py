"""The denoising decision process: transition kernels as pure functions.

Notation of DDIM (arXiv 2010.02502): x_t is the noisier latent, x_s the next one, ``alpha`` the
cumulative product alphas_cumprod. With s the timestep before t on the sampler's grid,

    x0_hat  = (x_t - sqrt(1 - alpha_t) eps) / sqrt(alpha_t)
    sigma^2 = eta^2 (1 - alpha_s) / (1 - alpha_t) (1 - alpha_t / alpha_s)
    p(x_s | x_t) = N(sqrt(alpha_s) x0_hat + sqrt(1 - alpha_s - sigma^2) eps, sigma^2 I)
    q(x_t | x_s) = N(sqrt(alpha_t / alpha_s) x_s, (1 - alpha_t / alpha_s) I)

sigma^2 is that of x_s when x_0 is known. It is not: the prediction is a mean, and x_0 given x_t has
a variance c around it. The isotropic normal distribution closest to the true p(x_s | x_t) (arXiv
2201.06503; by state, 2206.07309) has the same mean and the variance

    sigma^2 + k^2 c,
    k = sqrt(alpha_s) - sqrt(1 - alpha_s - sigma^2) sqrt(alpha_t / (1 - alpha_t)),

which ``transition`` takes where it is given c (``clean_variance``). Without it, few steps leave a
bias that no training of the mean removes; ``docs/mixture.md`` measures it.

Schedule arithmetic is float64, log-densities are float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

Reduction = Literal["mean", "sum"]
"""How a log-density is reduced over latent dimensions. DDPO, DAG and their kin use the mean; the
density itself is the sum. Clip ranges and reward scales of one are not those of the other."""


@dataclass(frozen=True)
class Schedule:
    """Noise schedule on a sampler's grid of T steps; step 0 is the noisiest."""

    alphas_cumprod: torch.Tensor
    """float64 ``[train timesteps]``."""
    timesteps: torch.Tensor
    """int64 ``[T]``, descending: t of each step."""
    previous: torch.Tensor
    """int64 ``[T]``: s of each step; -1 means the clean end, whose alpha is below."""
    final_alpha_cumprod: float

    @property
    def steps(self) -> int:
        """T."""
        return len(self.timesteps)

    def alpha(self, step: torch.Tensor) -> torch.Tensor:
        """alpha_t of steps, float64 of the same shape."""
        return self.alphas_cumprod[self.timesteps[step.cpu()]].to(step.device)

    def alpha_previous(self, step: torch.Tensor) -> torch.Tensor:
        """alpha_s of steps, float64 of the same shape."""
        previous = self.previous[step.cpu()]
        alpha = self.alphas_cumprod[previous.clamp(min=0)]
        final = torch.full_like(alpha, self.final_alpha_cumprod)
        return torch.where(previous >= 0, alpha, final).to(step.device)


@dataclass(frozen=True)
class Gaussian:
    """An isotropic normal distribution a sample: mean ``[n, ...]``, standard deviation ``[n]``."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Mean plus standard deviation times ``noise`` (standard normal, shape of the mean)."""
        return self.mean + _expand(self.std, self.mean) * noise


def make_schedule(scheduler_config: Mapping[str, Any], steps: int) -> Schedule:
    """Grid of ``steps`` timesteps out of a diffusers scheduler's configuration.

    ``timestep_spacing`` "leading" puts t at multiples of ``1000 // steps`` plus ``steps_offset``
    (released DDPO and DAG: 981, 961, ..., 1), "trailing" at rounded ends of equal intervals. The
    timestep after the last is the clean end, with alpha of timestep 0, or 1 where
    ``set_alpha_to_one`` is true.

    Raises:
        ValueError: Naming the setting that is unsupported or leaves the last step without noise.
    """
    total = int(scheduler_config.get("num_train_timesteps", 1000))
    if not 1 <= steps <= total:
        raise ValueError(f"sampling steps must be from 1 to {total}, not {steps}")
    if scheduler_config.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError("scheduler setting prediction_type must be 'epsilon'")
    for setting in ("trained_betas", "rescale_betas_zero_snr", "thresholding"):
        if scheduler_config.get(setting):
            raise ValueError(f"scheduler setting {setting} is not supported")
    alphas_cumprod = (1 - _betas(scheduler_config, total)).cumprod(0)
    spacing = scheduler_config.get("timestep_spacing", "leading")
    index = torch.arange(steps, dtype=torch.float64)
    if spacing == "leading":
        offset = int(scheduler_config.get("steps_offset", 0))
        timesteps = (index * (total // steps)).round().long().flip(0) + offset
        if timesteps[0] >= total:
            raise ValueError(f"scheduler setting steps_offset={offset} exceeds {total} timesteps")
    elif spacing == "trailing":
        timesteps = (total - index * total / steps).round().long() - 1
    else:
        raise ValueError(f"scheduler setting timestep_spacing={spacing!r} is not supported")
    previous = torch.cat([timesteps[1:], torch.tensor([-1])])
    final = 1.0 if scheduler_config.get("set_alpha_to_one", True) else alphas_cumprod[0].item()
    return Schedule(alphas_cumprod, timesteps, previous, final)


def _betas(config: Mapping[str, Any], total: int) -> torch.Tensor:
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, total, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, total, dtype=torch.float64) ** 2
    raise ValueError(f"scheduler setting beta_schedule={kind!r} is not supported")


def require_stochastic(schedule: Schedule, eta: float) -> None:
    """Raise unless every transition has noise, so that every log-density is finite.

    Raises:
        ValueError: Naming eta, or the scheduler settings that make the last step noiseless.
    """
    if eta <= 0:
        raise ValueError("eta must be above 0: at eta 0 sampling is deterministic, without density")
    deviations = standard_deviation(schedule, torch.arange(schedule.steps), eta)
    if (deviations[:-1] <= 0).any():
        raise ValueError("the schedule repeats a timestep: use fewer sampling steps")
    if deviations[-1] <= 0:
        setting = "set_alpha_to_one must be false"
        if schedule.final_alpha_cumprod < 1:  # then t itself is 0, as clean as s
            setting = "timestep_spacing must be 'leading' with steps_offset=1"
        raise ValueError(
            "the last sampling step has no noise, so its log-density is infinite: "
            f"scheduler setting {setting}, as in Stable Diffusion"
        )


def standard_deviation(schedule: Schedule, step: torch.Tensor, eta: float) -> torch.Tensor:
    """sigma of p(x_s | x_t), float64 in the shape of ``step``."""
    alpha, previous = schedule.alpha(step), schedule.alpha_previous(step)
    variance = (1 - previous) / (1 - alpha) * (1 - alpha / previous)
    return eta * variance.clamp(min=0).sqrt()


def clean_prediction(
    schedule: Schedule, step: torch.Tensor, latents: torch.Tensor, noise_prediction: torch.Tensor
) -> torch.Tensor:
    """x0_hat, ``[n, ...]`` float32; no clipping."""
    alpha = _expand(schedule.alpha(step), latents)
    noise = (1 - alpha).sqrt().float() * noise_prediction.float()
    return (latents.float() - noise) / alpha.sqrt().float()


def transition(
    schedule: Schedule,
    step: torch.Tensor,
    latents: torch.Tensor,
    noise_prediction: torch.Tensor,
    eta: float = 1.0,
    clean_variance: torch.Tensor | None = None,
) -> Gaussian:
    """p_theta(x_s | x_t) of DDIM with ``eta`` (1: ancestral sampling) for each sample's own step.

    ``step`` int64 ``[n]``, ``latents`` and ``noise_prediction`` ``[n, ...]``; float32 out.
    ``clean_variance`` ``[n]``, the variance of x_0 given x_t averaged over dimensions, widens the
    distribution by what the clean prediction leaves open.
    """
    previous = schedule.alpha_previous(step)
    std = standard_deviation(schedule, step, eta)
    direction = _expand((1 - previous - std**2).clamp(min=0).sqrt().float(), latents)
    clean = clean_prediction(schedule, step, latents, noise_prediction)
    mean = _expand(previous.sqrt().float(), latents) * clean + direction * noise_prediction.float()
    if clean_variance is None:
        return Gaussian(mean, std.float())
    variance = std.square() + clean_weight(schedule, step, eta).square() * clean_variance.double()
    return Gaussian(mean, variance.sqrt().float())


def clean_weight(schedule: Schedule, step: torch.Tensor, eta: float) -> torch.Tensor:
    """k, the weight of x_0 in the mean of x_s at a given x_t, float64 in the shape of ``step``."""
    alpha, previous = schedule.alpha(step), schedule.alpha_previous(step)
    variance = standard_deviation(schedule, step, eta).square()
    direction = (1 - previous - variance).clamp(min=0).sqrt()
    return previous.sqrt() - direction * (alpha / (1 - alpha)).sqrt()


def score_scale(schedule: Schedule, step: torch.Tensor, eta: float) -> torch.Tensor:
    """|d mean / d noise_prediction| / sigma of p(x_s | x_t), float64 in the shape of ``step``.

    The gradient of a transition's log-density to the noise prediction is this times a standard
    normal draw, so its square is a step's share in the variance of a policy gradient. With the
    schedule of Stable Diffusion it is about 1 but for the last step but one, where it is 8 at 10
    steps; at 50 steps 0.4 to 0.6, and 4.6 there.
    """
    alpha, previous = schedule.alpha(step), schedule.alpha_previous(step)
    std = standard_deviation(schedule, step, eta)
    direction = (1 - previous - std**2).clamp(min=0).sqrt()
    return ((previous * (1 - alpha) / alpha).sqrt() - direction).abs() / std


def noising(schedule: Schedule, step: torch.Tensor, previous_latents: torch.Tensor) -> Gaussian:
    """q(x_t | x_s): the noising kernel between a step's two latents, given the cleaner one."""
    ratio = schedule.alpha(step) / schedule.alpha_previous(step)
    mean = _expand(ratio.sqrt().float(), previous_latents) * previous_latents.float()
    return Gaussian(mean, (1 - ratio).clamp(min=0).sqrt().float())


def log_density(x: torch.Tensor, gaussian: Gaussian, reduction: Reduction) -> torch.Tensor:
    """Log-density of ``x`` ``[n, ...]``, constants kept, reduced over all but the first dimension.

    float32 ``[n]``; ``reduction`` is the mean or the sum over dimensions.
    """
    std = _expand(gaussian.std, gaussian.mean)
    standardised = (x.float() - gaussian.mean) / std
    constant = std.log() + 0.5 * math.log(2 * math.pi)
    values = (-0.5 * standardised.square() - constant).flatten(1)
    return values.mean(dim=1) if reduction == "mean" else values.sum(dim=1)


def _expand(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``[n]`` as ``[n, 1, ...]``, to multiply ``like`` with; the dtype stays."""
    return values.to(like.device).reshape(-1, *[1] * (like.dim() - 1))
