"""A diffusion model known in closed form: pictures whose pixels are independent and normal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from diffusion.kernel import make_schedule
from diffusion.ledger import Ledger
from diffusion.policy import Conditioning, NoisePrediction, Policy

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class PointFlow(nn.Module):
    """A log flow quadratic in the latent, with coefficients of its own for each step."""

    def __init__(self, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Parameter(0.1 * torch.randn(steps, 3, generator=generator))
        self.square = nn.Parameter(torch.zeros(steps, 3))
        self.constant = nn.Parameter(torch.zeros(steps))

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        channels = latents.mean(dim=(2, 3))
        linear, square = self.linear[step] * channels, self.square[step] * channels.square()
        return (linear + square).sum(1) + self.constant[step]


class PointPolicy(Policy):
    """Latents ``[n, 3, 2, 2]`` of data N(mean, spread^2), the mean being the one parameter.

    The noise prediction is the exact one for such data, and linear in the mean; pictures are the
    latents pressed into [0, 1].
    """

    def __init__(self, steps: int = 5, eta: float = 1.0, spread: float = 0.5) -> None:
        self.schedule = make_schedule(STABLE_DIFFUSION, steps)
        self.ledger = Ledger()
        self.eta, self.guidance_scale = eta, 1.0
        self.latent_shape = (3, 2, 2)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.spread = spread
        self.mean = nn.Parameter(torch.zeros(3, 1, 1))

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 1, 1), torch.zeros(1, 1, 1))

    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        noise = self.predict_conditional_noise(latents, step, conditioning)
        return NoisePrediction(noise, noise)

    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        self.ledger.add("unet_forward", len(latents))
        alpha = self.schedule.alpha(step).float().view(-1, 1, 1, 1)
        variance = alpha * self.spread**2 + 1 - alpha
        return (1 - alpha).sqrt() * (latents - alpha.sqrt() * self.mean) / variance

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.ledger.add("vae_decode", len(latents))
        return latents.sigmoid()

    def parameters(self) -> list[nn.Parameter]:
        return [self.mean]

    def build_flow(self, generator: torch.Generator) -> PointFlow:
        return PointFlow(self.schedule.steps, generator)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"mean": self.mean.detach().clone()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            self.mean.copy_(state["mean"])

    def save_weights(self, folder: Path) -> None:
        raise NotImplementedError("a policy of tests is never saved")

    @contextmanager
    def base(self) -> Iterator[None]:
        trained = self.state_dict()
        self.load_state_dict({"mean": torch.zeros_like(self.mean)})
        yield
        self.load_state_dict(trained)


def ddim_log_density(
    policy: PointPolicy, mean: torch.Tensor, step: int, x_t: torch.Tensor, x_s: torch.Tensor
) -> torch.Tensor:
    """log p(x_s | x_t) per dimension ``[n]`` for a data mean ``[3, 1, 1]``: float64, written out
    anew from the formulas of DDIM and ``torch.distributions``."""
    alphas = policy.schedule.alphas_cumprod
    alpha = float(alphas[policy.schedule.timesteps[step]])
    last = step == policy.schedule.steps - 1
    previous = float(alphas[0] if last else alphas[policy.schedule.timesteps[step + 1]])
    x_t, x_s = x_t.double(), x_s.double()
    noise = math.sqrt(1 - alpha) * (x_t - math.sqrt(alpha) * mean)
    noise = noise / (alpha * policy.spread**2 + 1 - alpha)
    variance = policy.eta**2 * (1 - previous) / (1 - alpha) * (1 - alpha / previous)
    clean = (x_t - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
    centre = math.sqrt(previous) * clean + math.sqrt(1 - previous - variance) * noise
    normal = torch.distributions.Normal(centre, math.sqrt(variance))
    return normal.log_prob(x_s).flatten(1).mean(1)
