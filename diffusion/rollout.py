"""Batched trajectories of the denoising decision process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from diffusion.kernel import (
    Gaussian,
    Reduction,
    clean_prediction,
    log_density,
    require_stochastic,
)
from diffusion.policy import Conditioning, NoisePrediction, Policy


@dataclass
class Trajectories:
    """n trajectories of T steps, as the sampler stored them. No tensor carries a gradient."""

    prompts: list[str]
    conditioning: Conditioning
    latents: torch.Tensor
    """``[T + 1, n, ...]``: x_T first, the final x_0 last."""
    timesteps: torch.Tensor
    """int64 ``[T]``."""
    log_densities: torch.Tensor
    """float32 ``[T, n]``: log p(x_s | x_t), of the latents as stored."""
    noise_predictions: torch.Tensor
    """``[T, n, ...]``, guided."""
    clean_predictions: torch.Tensor
    """``[T, n, ...]``: x0_hat of the guided prediction."""
    conditional_clean_predictions: torch.Tensor
    """``[T, n, ...]``: x0_hat of the conditional branch alone."""
    starts: torch.Tensor
    """int64 ``[n]``, on the CPU: the trajectory at which each one's prompt and x_T came first. The
    first prediction, and what follows from it alone, is made once for all that share a start."""
    reduction: Reduction

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def final(self) -> torch.Tensor:
        """The sampled latents x_0, ``[n, ...]``."""
        return self.latents[-1]


@dataclass(frozen=True)
class SampledStep:
    """One step of a batch in ``sample``, before its noise is added."""

    step: torch.Tensor
    """int64 ``[n]``: index into the schedule, the same for all."""
    latents: torch.Tensor
    """x_t, ``[n, ...]``."""
    conditioning: Conditioning
    gaussian: Gaussian
    """p(x_s | x_t) of the policy."""


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    reduction: Reduction = "mean",
    batch_size: int | None = None,
    initial: torch.Tensor | None = None,
) -> Trajectories:
    """Sample one trajectory for each prompt, ``batch_size`` at a time (the policy's by default).

    Each trajectory draws all its noise from its own generator, so it does not depend on the batch
    it was in, beyond rounding; ``initial`` ``[n, ...]`` is x_T where it is given instead.
    Neighbours of a batch that share prompt and x_T share the first call of the model.

    Raises:
        ValueError: When a step has no noise (eta 0, or scheduler settings), naming the setting;
            when there are not as many generators, or latents, as prompts.
    """
    require_stochastic(policy.schedule, policy.eta)
    _require_as_many(prompts, generators)
    batch_size = policy.rollout_batch_size if batch_size is None else batch_size
    if initial is None:
        initial = initial_latents(policy, generators)
    elif len(initial) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(initial)} initial latents")
    parts = []
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        parts.append(
            _rollout_batch(policy, prompts[chosen], generators[chosen], initial[chosen], reduction)
        )
    policy.ledger.add("images", len(prompts))
    return _concatenate(parts)


def initial_latents(policy: Policy, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """x_T ``[n, ...]``, standard normal, one generator a trajectory."""
    return _noise(policy, generators).to(policy.dtype)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    eta: float | None = None,
    batch_size: int = 32,
    watch: Callable[[SampledStep], None] | None = None,
) -> torch.Tensor:
    """Final latents x_0 ``[n, ...]`` alone, at ``eta`` (the policy's own by default; 0 works).

    ``watch`` is called with every step of every batch, and must leave it as it is.
    """
    _require_as_many(prompts, generators)
    finals = []
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        noise = _chain_noise(policy, generators[chosen], policy.schedule.steps + 1)
        finals.append(_denoise(policy, policy.encode(prompts[chosen]), noise, eta, watch))
    policy.ledger.add("images", len(prompts))
    return torch.cat(finals)


@torch.no_grad()
def sample_jointly(
    policy: Policy,
    prompt: str,
    n: int,
    source: torch.Generator,
    batch_size: int,
    eta: float | None = None,
) -> torch.Tensor:
    """n final latents of one prompt ``[n, ...]``, all noise from one generator; at ``eta``, the
    policy's own by default.

    Much faster than a generator a latent where latents are tiny; the price is that a latent
    depends on how many there are in its batch.
    """
    finals = []
    for size in [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0):
        shape = (size, *policy.latent_shape)
        draws = range(policy.schedule.steps + 1)
        noise = (torch.randn(shape, generator=source).to(policy.device) for _ in draws)
        finals.append(_denoise(policy, policy.encode([prompt] * size), noise, eta))
    policy.ledger.add("images", n)
    return torch.cat(finals)


def _denoise(
    policy: Policy,
    conditioning: Conditioning,
    noise: Iterator[torch.Tensor],
    eta: float | None = None,
    watch: Callable[[SampledStep], None] | None = None,
) -> torch.Tensor:
    """Final latents of one batch; ``noise`` gives x_T, then the noise of each step, and ``watch``
    is called with each step."""
    latents = next(noise).to(policy.dtype)
    for index in range(policy.schedule.steps):
        step = torch.full((len(latents),), index)
        prediction = policy.predict_noise(latents, step, conditioning)
        gaussian = policy.transition(step, latents, prediction.guided, eta)
        if watch is not None:
            watch(SampledStep(step, latents, conditioning, gaussian))
        latents = gaussian.sample(next(noise)).to(policy.dtype)
    return latents


def _require_as_many(prompts: Sequence[str], generators: Sequence[torch.Generator]) -> None:
    if len(prompts) != len(generators):
        raise ValueError(f"{len(prompts)} prompts but {len(generators)} generators")


def _noise(policy: Policy, generators: Sequence[torch.Generator]) -> torch.Tensor:
    noise = [torch.randn(policy.latent_shape, generator=generator) for generator in generators]
    return torch.stack(noise).to(policy.device)


def _chain_noise(
    policy: Policy, generators: Sequence[torch.Generator], draws: int
) -> Iterator[torch.Tensor]:
    """The noise of ``draws`` steps, ``[n, ...]`` each, one generator a trajectory.

    Drawn in one go, which is what takes the time where latents are tiny; where their size is a
    multiple of 16, the numbers are those of a draw a step.
    """
    shape = (draws, *policy.latent_shape)
    noise = torch.stack([torch.randn(shape, generator=g) for g in generators], dim=1)
    for drawn in noise:
        yield drawn.to(policy.device)


def _rollout_batch(
    policy: Policy,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    initial: torch.Tensor,
    reduction: Reduction,
) -> Trajectories:
    schedule = policy.schedule
    conditioning = policy.encode(prompts)
    noise = _chain_noise(policy, generators, schedule.steps)
    starts = _starts(prompts, initial)
    latents = [initial]
    log_densities, noise_predictions, clean, conditional_clean = [], [], [], []
    for index in range(schedule.steps):
        x_t = latents[-1]
        step = torch.full((len(prompts),), index)
        if index == 0:
            prediction = _predict_from_starts(policy, x_t, step, conditioning, starts)
        else:
            prediction = policy.predict_noise(x_t, step, conditioning)
        gaussian = policy.transition(step, x_t, prediction.guided)
        # The density is that of the latent as stored: rounding it afterwards would move the
        # importance ratio of the first update away from 1.
        x_s = gaussian.sample(next(noise)).to(policy.dtype)
        log_densities.append(log_density(x_s, gaussian, reduction))
        noise_predictions.append(prediction.guided)
        clean.append(clean_prediction(schedule, step, x_t, prediction.guided))
        conditional_clean.append(clean_prediction(schedule, step, x_t, prediction.conditional))
        latents.append(x_s)
    return Trajectories(
        prompts=list(prompts),
        conditioning=conditioning,
        latents=torch.stack(latents),
        timesteps=schedule.timesteps,
        log_densities=torch.stack(log_densities),
        noise_predictions=torch.stack(noise_predictions),
        clean_predictions=torch.stack(clean),
        conditional_clean_predictions=torch.stack(conditional_clean),
        starts=starts,
        reduction=reduction,
    )


def _starts(prompts: Sequence[str], initial: torch.Tensor) -> torch.Tensor:
    """See ``Trajectories.starts``; only neighbours are compared."""
    alike = (initial[1:] == initial[:-1]).flatten(1).all(dim=1).tolist()
    starts = [0]
    for index, same_latents in enumerate(alike, start=1):
        same = same_latents and prompts[index] == prompts[index - 1]
        starts.append(starts[-1] if same else index)
    return torch.tensor(starts)


def _predict_from_starts(
    policy: Policy,
    latents: torch.Tensor,
    step: torch.Tensor,
    conditioning: Conditioning,
    starts: torch.Tensor,
) -> NoisePrediction:
    """The noise predictions of x_T, one call for each distinct start."""
    distinct, place = starts.unique(return_inverse=True)
    made = policy.predict_noise(latents[distinct], step[distinct], conditioning[distinct])
    return NoisePrediction(made.guided[place], made.conditional[place])


def _concatenate(parts: list[Trajectories]) -> Trajectories:
    def along_samples(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim=1)

    before = accumulate((len(part) for part in parts[:-1]), initial=0)
    return Trajectories(
        prompts=[prompt for part in parts for prompt in part.prompts],
        conditioning=Conditioning.joined([part.conditioning for part in parts]),
        latents=along_samples("latents"),
        timesteps=parts[0].timesteps,
        log_densities=along_samples("log_densities"),
        noise_predictions=along_samples("noise_predictions"),
        clean_predictions=along_samples("clean_predictions"),
        conditional_clean_predictions=along_samples("conditional_clean_predictions"),
        starts=torch.cat([part.starts + n for part, n in zip(parts, before, strict=True)]),
        reduction=parts[0].reduction,
    )
