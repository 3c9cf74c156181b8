"""Any density in the plane under a diffusion's noise, by quadrature.

What ``RingMixture`` knows in closed form, from values on a grid: with p_f given at the schedule's
clean end ``alpha_f`` and r = alpha / alpha_f, the noised density p_alpha is p_f scaled by sqrt(r)
and convolved with a normal distribution of variance 1 - r. E[y | x] and Cov[y | x] of the point y
it was noised from are sums over the grid, one axis at a time; then, by Tweedie's formula,

    grad log p_alpha   = (sqrt(r) E[y | x] - x) / (1 - r),
    grad^2 log p_alpha = r Cov[y | x] / (1 - r)^2 - I / (1 - r),

which give the noise prediction and the moments of x_0. Sums are made at the points of a second grid
and interpolated linearly. Both grids are fine enough for the least noise of the schedule used here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

HALF_WIDTH, POINTS = 4.0, 161
"""Of the grid that the density is given on, a side; its spacing is 0.05."""
NOISED_HALF_WIDTH, NOISED_POINTS = 5.0, 201


class PlaneDensity:
    """The density exp(``log_density``) up to a constant, ``[n, 2]`` float64 to ``[n]``, of points
    at alpha ``final``; nothing of it may lie beyond 4 on either axis."""

    def __init__(
        self, log_density: Callable[[torch.Tensor], torch.Tensor], final: float = 1.0
    ) -> None:
        self.final = final
        self.axis = torch.linspace(-HALF_WIDTH, HALF_WIDTH, POINTS, dtype=torch.float64)
        first, second = torch.meshgrid(self.axis, self.axis, indexing="ij")
        values = log_density(torch.stack([first.flatten(), second.flatten()], dim=1)).double()
        self.values = (values - values.max()).exp().view(POINTS, POINTS)
        self.noised_axis = torch.linspace(
            -NOISED_HALF_WIDTH, NOISED_HALF_WIDTH, NOISED_POINTS, dtype=torch.float64
        )

    def noise_mean(self, points: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """The exact noise prediction ``[n, 2]`` float64 at points all noised to one ``alpha``."""
        score, _ = self._derivatives(points, alpha)
        return -(1 - _level(alpha)).sqrt() * score

    def clean_covariance(self, points: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Cov[x_0 | x], ``[n, 2, 2]`` float64."""
        level = _level(alpha)
        _, curvature = self._derivatives(points, alpha)
        identity = torch.eye(2, dtype=torch.float64)
        return (1 - level) / level * (identity + (1 - level) * curvature)

    def clean_moments(
        self, points: torch.Tensor, alpha: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """E[x_0 | x] ``[n, 2]`` and its variance, averaged over the dimensions, ``[n]``."""
        level = _level(alpha)
        score, _ = self._derivatives(points, alpha)
        mean = (points.double() + (1 - level) * score) / level.sqrt()
        trace = self.clean_covariance(points, alpha).diagonal(dim1=1, dim2=2).mean(1)
        return mean, trace.clamp(min=0)

    def _derivatives(
        self, points: torch.Tensor, alpha: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient ``[n, 2]`` and second derivatives ``[n, 2, 2]`` of log p_alpha."""
        x = points.double()
        ratio = _level(alpha) / self.final
        mean, covariance = self._moments(x, float(ratio))
        score = (ratio.sqrt() * mean - x) / (1 - ratio)
        identity = torch.eye(2, dtype=torch.float64)
        return score, ratio * covariance / (1 - ratio) ** 2 - identity / (1 - ratio)

    def _moments(self, x: torch.Tensor, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
        """E[y | x] ``[n, 2]`` and Cov[y | x] ``[n, 2, 2]``."""
        offsets = self.noised_axis.unsqueeze(1) - ratio**0.5 * self.axis
        kernel = torch.exp(-0.5 * offsets.square() / (1 - ratio))
        powers = [kernel * self.axis**power for power in range(3)]

        def total(first: int, second: int) -> torch.Tensor:
            return powers[first] @ self.values @ powers[second].T

        mass = total(0, 0).clamp(min=torch.finfo(torch.float64).tiny)
        powers_of_y = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
        first, second, *squares = [total(*power) / mass for power in powers_of_y]
        means = (first * first, first * second, second * second)
        central = [square - mean for square, mean in zip(squares, means, strict=True)]
        found = self._interpolated(torch.stack([first, second, *central]), x)
        return found[:, :2], found[:, [2, 3, 3, 4]].view(-1, 2, 2)

    def _interpolated(self, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Values ``[k, NOISED_POINTS, NOISED_POINTS]`` of the second grid at ``x``, ``[n, k]``."""
        spacing = 2 * NOISED_HALF_WIDTH / (NOISED_POINTS - 1)
        place = ((x + NOISED_HALF_WIDTH) / spacing).clamp(0, NOISED_POINTS - 1 - 1e-9)
        (i, j), (u, v) = place.long().T, place.frac().T
        lower = values[:, i, j] * (1 - v) + values[:, i, j + 1] * v
        upper = values[:, i + 1, j] * (1 - v) + values[:, i + 1, j + 1] * v
        return (lower * (1 - u) + upper * u).T


def _level(alpha: torch.Tensor) -> torch.Tensor:
    """The one alpha that all points have, float64 with no dimension."""
    return torch.as_tensor(alpha, dtype=torch.float64).flatten()[0]
