"""A ring of Gaussians in the plane under a diffusion's noise: everything in closed form.

Data are K components of equal weight, centres m_k evenly on a circle, covariance s^2 I. Noised to
``alpha`` (alphas_cumprod of a timestep) they are again such a mixture,

    p_alpha(x) = 1/K sum_k N(x; sqrt(alpha) m_k, v I),    v = alpha s^2 + 1 - alpha,

and what a denoiser is trained to predict follows from Bayes' rule: with the responsibilities
w_k(x) and the components' own posteriors m_k + sqrt(alpha) s^2 / v (x - sqrt(alpha) m_k), the clean
prediction E[x_0 | x] is their mean, and Cov[x_0 | x] the sum of the spread between the components
and the (1 - alpha) s^2 / v that each has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RingMixture:
    """Eight components of deviation 0.3 by default, on the circle that gives each coordinate
    variance one: what the diffusion ends in, N(0, I), then differs least from its noisiest state.
    Neighbours are 3.4 deviations apart."""

    components: int = 8
    deviation: float = 0.3

    @property
    def radius(self) -> float:
        """Of the circle of centres."""
        return math.sqrt(2 * (1 - self.deviation**2))

    @property
    def centres(self) -> torch.Tensor:
        """``[K, 2]`` float64; the first lies on the positive first axis."""
        angle = 2 * math.pi * torch.arange(self.components, dtype=torch.float64) / self.components
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)

    def log_density(self, points: torch.Tensor, alpha: torch.Tensor | float) -> torch.Tensor:
        """log p_alpha, ``[n]`` float64; ``alpha`` is a number or ``[n]``."""
        x, alpha = _float64(points, alpha)
        distance, variance = self._offsets(x, alpha).square().sum(-1), self._variance(alpha)
        exponents = -0.5 * distance / variance - (2 * math.pi * variance).log()
        return exponents.logsumexp(dim=1) - math.log(self.components)

    def clean_moments(
        self, points: torch.Tensor, alpha: torch.Tensor | float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """E[x_0 | x] ``[n, 2]`` of noised points and the variance of x_0 around it, averaged over
        the two dimensions, ``[n]``; float64."""
        x, alpha = _float64(points, alpha)
        weight, posterior = self._posteriors(x, alpha)
        mean = (weight.unsqueeze(-1) * posterior).sum(1)
        between = (weight * (posterior - mean.unsqueeze(1)).square().mean(-1)).sum(1)
        within = self.deviation**2 * (1 - alpha) / self._variance(alpha)
        return mean, between + within.squeeze(-1)

    def clean_covariance(self, points: torch.Tensor, alpha: torch.Tensor | float) -> torch.Tensor:
        """Cov[x_0 | x] of noised points, ``[n, 2, 2]`` float64."""
        x, alpha = _float64(points, alpha)
        weight, posterior = self._posteriors(x, alpha)
        mean = (weight.unsqueeze(-1) * posterior).sum(1, keepdim=True)
        between = torch.einsum("nk,nki,nkj->nij", weight, posterior - mean, posterior - mean)
        within = self.deviation**2 * (1 - alpha) / self._variance(alpha)
        return between + within.unsqueeze(-1) * torch.eye(2, dtype=torch.float64, device=x.device)

    def noise_mean(self, points: torch.Tensor, alpha: torch.Tensor | float) -> torch.Tensor:
        """E[noise | x] of noised points, ``[n, 2]`` float64: the exact noise prediction, which is
        -sqrt(1 - alpha) times the score of p_alpha."""
        x, alpha = _float64(points, alpha)
        clean, _ = self.clean_moments(points, alpha)
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    def sample(
        self, n: int, alpha: torch.Tensor | float, generator: torch.Generator
    ) -> torch.Tensor:
        """Points of p_alpha, ``[n, 2]`` float64."""
        level = torch.as_tensor(alpha, dtype=torch.float64).reshape(-1, 1)
        chosen = torch.randint(self.components, (n,), generator=generator)
        noise = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return level.sqrt() * self.centres[chosen] + self._variance(level).sqrt() * noise

    def _variance(self, alpha: torch.Tensor) -> torch.Tensor:
        return alpha * self.deviation**2 + 1 - alpha

    def _offsets(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """``[n, K, 2]``: from the noised centres."""
        return x.unsqueeze(1) - alpha.sqrt().unsqueeze(-1) * self.centres.to(x.device)

    def _posteriors(
        self, x: torch.Tensor, alpha: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Responsibilities ``[n, K]`` and the components' clean means ``[n, K, 2]``."""
        offsets, variance = self._offsets(x, alpha), self._variance(alpha)
        weight = (-0.5 * offsets.square().sum(-1) / variance).softmax(dim=1)
        gain = (alpha.sqrt() * self.deviation**2 / variance).unsqueeze(-1)
        return weight, self.centres.to(x.device) + gain * offsets


def _float64(
    points: torch.Tensor, alpha: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points ``[n, 2]`` and alpha ``[n, 1]`` or ``[1, 1]``, both float64."""
    x = points.double()
    return x, torch.as_tensor(alpha, dtype=torch.float64, device=x.device).reshape(-1, 1)
