"""How much of a sampler's error is its kernel's: the exact denoiser under each kernel.

    python -m benchmark.mixture_floors [points]

Samples p_base with the denoiser of ``diffusion/gaussian_mixture.py``, and the targets that methods
declare for the rewards on points, beta 2, with that of ``diffusion/plane_density.py``: no network
errs, only the transitions do. Prints the total variation from the distribution itself on the grid
of ``results.density``. The kernels have the same mean, which is exact, and differ in their
covariance:

    posterior   that of x_s given x_t and x_0 (DDIM with eta 1): the default of the suites;
    noising     1 - alpha_t / alpha_s, the other choice of arXiv 2006.11239;
    step        sigma^2 + k^2 c with c the mean over states (Analytic-DPM, arXiv 2201.06503);
    state       the same with each state's own c: what ``variance: learned`` is fitted to;
    full        each state's covariance matrix, the best there is with normal distributions.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor

import rewards
from diffusion.gaussian_mixture import RingMixture
from diffusion.kernel import Schedule, clean_weight, make_schedule, noising, transition
from diffusion.mixture import SCHEDULER
from diffusion.plane_density import PlaneDensity
from diffusion.randomness import generator
from methods import Target
from results import density

KERNELS = ("posterior", "noising", "step", "state", "full")
STEPS = (20, 50, 100)
REWARDS = ("point_linear", "point_bump", "point_modes")
BETA = 2.0
"""The suite's."""
Model = RingMixture | PlaneDensity


def next_points(
    kernel: str, model: Model, schedule: Schedule, step: Tensor, x: Tensor, noise: Tensor
) -> Tensor:
    """x_s of points ``[n, 2]`` float64 all at one ``step`` ``[n]``, with ``noise`` ``[n, 2]``."""
    alpha = schedule.alpha(step)
    clean_variance = None
    if kernel in ("step", "state"):
        _, clean_variance = model.clean_moments(x, alpha)
        if kernel == "step":
            clean_variance = clean_variance.mean().expand(len(x))
    gaussian = transition(
        schedule, step, x, model.noise_mean(x, alpha), clean_variance=clean_variance
    )
    if kernel == "noising":
        return gaussian.mean + noising(schedule, step, x).std.unsqueeze(1) * noise
    if kernel == "full":
        spread = clean_weight(schedule, step, 1.0).square()[:, None, None]
        own = gaussian.std.double().square()[:, None, None] * torch.eye(2, dtype=torch.float64)
        factor = torch.linalg.cholesky(own + spread * model.clean_covariance(x, alpha))
        return gaussian.mean + torch.einsum("nij,nj->ni", factor, noise)
    return gaussian.sample(noise)


def draw(kernel: str, model: Model, steps: int, n: int) -> Tensor:
    """Points ``[n, 2]`` of an exact denoiser under a kernel, from the same noise for all."""
    schedule = make_schedule(SCHEDULER, steps)
    source = generator(0, "floors", steps)
    x = torch.randn(n, 2, dtype=torch.float64, generator=source)
    for index in range(steps):
        noise = torch.randn(n, 2, dtype=torch.float64, generator=source)
        step = torch.full((n,), index)
        x = next_points(kernel, model, schedule, step, x, noise).double()
    return x


def log_density(base: bool, reward: str, points: Tensor) -> Tensor:
    """Of p_base, p_base exp(beta r) or exp(beta r), ``[n]`` float64, up to a constant."""
    final = make_schedule(SCHEDULER, 1).final_alpha_cumprod
    found = RingMixture().log_density(points, final) if base else torch.zeros(len(points))
    if reward:
        score = rewards.load(reward)(points.float(), [""] * len(points))
        found = found + BETA * score.double()
    return found


def main() -> None:
    """Print a table a distribution: a row a kernel, a column a number of steps."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 65536
    torch.set_num_threads(1)
    grid = torch.from_numpy(density.grid_points())
    final = make_schedule(SCHEDULER, 1).final_alpha_cumprod
    for base, reward in [(True, ""), *((base, r) for base in (True, False) for r in REWARDS)]:
        formula = Target(base, BETA if reward else None)
        of = partial(log_density, base, reward)
        model: Model = PlaneDensity(of, final) if reward else RingMixture()
        wanted = density.probabilities(of(grid).numpy())
        print(f"\n{formula} {reward}\n")
        print("| kernel | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |")
        floor = 0.0
        for kernel in KERNELS:
            found = []
            for steps in STEPS:
                counts = density.histogram(draw(kernel, model, steps, n).numpy())
                distance = density.distance(counts, wanted)
                found.append(f"{distance.total_variation:.3f}")
                floor = distance.total_variation_floor
            print(f"| `{kernel}` | " + " | ".join(found) + " |", flush=True)
        print(f"\nsampling floor of {n} points: {floor:.3f}")


if __name__ == "__main__":
    main()
