"""Fits the network of ``diffusion/mixture.py`` to the closed form.

    python -m diffusion.mixture_training

writes ``diffusion/mixture.safetensors``, in half a minute on one core. There are no data: points
are drawn from the noised mixture at timesteps drawn uniformly, a quarter of them from a wider
distribution instead, because alignment leads the sampler to where the base model does not go. The
targets are exact, the noise prediction and the logarithm of the variance of x_0, so the loss can
reach zero; the errors it ends at are printed and stand in the file.
"""

from __future__ import annotations

import time

import safetensors.torch
import torch

from diffusion.gaussian_mixture import RingMixture
from diffusion.kernel import make_schedule
from diffusion.mixture import SCHEDULER, WEIGHTS, PlaneNetwork
from diffusion.randomness import generator

SEED, ITERATIONS, BATCH, LEARNING_RATE = 0, 5_000, 512, 4e-3
SPREAD = 1.5
"""Deviation of the wide points, a quarter of each batch."""


def draw(
    ring: RingMixture, alphas: torch.Tensor, n: int, source: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points ``[n, 2]`` float32, timesteps ``[n]`` and exact targets ``[n, 3]`` float32."""
    timestep = torch.randint(len(alphas), (n,), generator=source)
    alpha = alphas[timestep]
    points = ring.sample(n, alpha, source)
    wide = SPREAD * torch.randn(n // 4, 2, dtype=torch.float64, generator=source)
    points[: n // 4] = wide
    return points.float(), timestep, targets(ring, points, alpha)


def targets(ring: RingMixture, points: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """What the network is to predict at noised points, ``[n, 3]`` float32."""
    mean, variance = ring.clean_moments(points, alpha)
    level = alpha.unsqueeze(1)
    noise = (points - level.sqrt() * mean) / (1 - level).sqrt()
    log_variance = (variance / (1 - alpha)).log().unsqueeze(1)
    return torch.cat([noise, log_variance], dim=1).float()


def fit() -> PlaneNetwork:
    """The network after the recipe, the same weights for the same version of torch."""
    alphas, ring = make_schedule(SCHEDULER, 1).alphas_cumprod, RingMixture()
    network = PlaneNetwork(3, alphas)
    network.initialise(generator(SEED, "mixture", "weights"))
    source = generator(SEED, "mixture", "points")
    adam = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, ITERATIONS)
    started = time.perf_counter()
    for iteration in range(1, ITERATIONS + 1):
        points, timestep, exact = draw(ring, alphas, BATCH, source)
        loss = (network(points, timestep) - exact).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        decay.step()
        if iteration % 500 == 0:
            spent = time.perf_counter() - started
            print(f"{iteration}: loss {loss.item():.3g}, {spent:.0f} s", flush=True)
    return network


@torch.no_grad()
def errors(network: PlaneNetwork, n: int = 100_000) -> dict[str, float]:
    """Root mean square errors on points of the noised mixture, over all timesteps."""
    alphas, ring = make_schedule(SCHEDULER, 1).alphas_cumprod, RingMixture()
    source = generator(SEED, "mixture", "errors")
    timestep = torch.randint(len(alphas), (n,), generator=source)
    alpha = alphas[timestep]
    points = ring.sample(n, alpha, source)
    difference = network(points.float(), timestep) - targets(ring, points, alpha)
    square = difference.square().mean(0)
    return {
        "noise prediction": square[:2].mean().sqrt().item(),
        "log variance": square[2].sqrt().item(),
    }


def main() -> None:
    """Fit, measure, write."""
    torch.set_num_threads(1)
    network = fit()
    found = {name: f"{value:.4f}" for name, value in errors(network).items()}
    print(found)
    state = {name: p.detach().clone() for name, p in network.named_parameters()}
    safetensors.torch.save_file(state, WEIGHTS, metadata=found)


if __name__ == "__main__":
    main()
