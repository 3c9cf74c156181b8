"""A diffusion model small enough to be known exactly: a ring of Gaussians in the plane.

Latents are points ``[n, 2]``, and so is what ``decode`` gives to the rewards. The network was
fitted to the closed form of ``diffusion/gaussian_mixture.py`` by ``diffusion/mixture_training.py``
and is trained whole, so every alignment method runs on it as on Stable Diffusion. Prompts say
nothing to it: each stands for the same distribution.

Where a sampler with few steps errs, a method cannot be told from its sampler. The network therefore
also predicts the variance of x_0 given x_t, with which ``variance: learned`` gives each state the
transition of the right width (``diffusion/kernel.py``); methods train it with the rest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal

import safetensors.torch
import torch
from torch import nn

from diffusion.gaussian_mixture import RingMixture
from diffusion.kernel import Gaussian, make_schedule, transition
from diffusion.ledger import Ledger, time_module
from diffusion.policy import Conditioning, NoisePrediction, Policy

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""Stable Diffusion's."""
WEIGHTS = Path(str(resources.files("diffusion"))) / "mixture.safetensors"
WIDTH, HIDDEN_LAYERS = 64, 3
Variance = Literal["posterior", "learned"]
MOST_LOG = 2.0
"""Most of the variance's output that is used, 7.4 times the noise's own variance: training can
drive the exponential of a network to infinity where it has seen nothing."""


class PlaneNetwork(nn.Module):
    """A perceptron on a point ``[n, 2]`` and the noise level of a timestep, ``[n, outputs]`` out.

    The level enters as sin and cos of pi k times the noise's share sqrt(1 - alpha), k = 1, 2, 4,
    and as half the logarithm of alpha / (1 - alpha), over 4.
    """

    levels: torch.Tensor

    def __init__(self, outputs: int, alphas_cumprod: torch.Tensor) -> None:
        super().__init__()
        share = (1 - alphas_cumprod).sqrt().unsqueeze(1)
        waves = math.pi * share * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        log_ratio = (alphas_cumprod / (1 - alphas_cumprod)).log().unsqueeze(1) / 8
        levels = torch.cat([waves.sin(), waves.cos(), log_ratio], dim=1).float()
        self.register_buffer("levels", levels, persistent=False)
        widths = [2 + levels.shape[1], *[WIDTH] * HIDDEN_LAYERS]
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """He's initialisation from ``generator``; the last layer is zero."""
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer in linear:
                noise = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(noise * math.sqrt(2 / layer.in_features))
                layer.bias.zero_()
            linear[-1].weight.zero_()

    def forward(self, points: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """``timestep`` int64 ``[n]``, of the training schedule."""
        return self.layers(torch.cat([points.float(), self.levels[timestep]], dim=1))


class MixtureFlow(nn.Module):
    """log F of a point at a step, ``[n]``; zero at first."""

    def __init__(self, alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> None:
        super().__init__()
        self.network = PlaneNetwork(1, alphas_cumprod)
        self.timesteps = timesteps

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """``step`` int64 ``[n]``; the conditioning says nothing."""
        return self.network(latents, self.timesteps[step]).squeeze(1)


class MixturePolicy(Policy):
    """The fitted network as a policy. Outputs 0 and 1 are the noise prediction, output 2 is
    log(variance of x_0 given x_t, averaged over the two dimensions) - log(1 - alpha_t)."""

    output: ClassVar[Literal["image", "point"]] = "point"
    rollout_batch_size: ClassVar[int] = 4096

    def __init__(
        self,
        network: PlaneNetwork,
        ring: RingMixture,
        ledger: Ledger,
        sampling_steps: int,
        eta: float = 1.0,
        variance: Variance = "posterior",
        device: str | torch.device = "cpu",
    ) -> None:
        self.schedule = make_schedule(SCHEDULER, sampling_steps)
        self.ring, self.ledger, self.variance = ring, ledger, variance
        self.eta, self.guidance_scale = eta, 1.0
        self.latent_shape, self.dtype = (2,), torch.float32
        self.device = torch.device(device)
        self.network = network.to(self.device)
        self._untrained = copy.deepcopy(self.network).requires_grad_(False)
        self._active: PlaneNetwork = self.network
        self._timesteps = self.schedule.timesteps.to(self.device)
        self._called: tuple[PlaneNetwork, torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Nothing: a zero a prompt."""
        return Conditioning(
            torch.zeros(len(prompts), 1, 1, device=self.device),
            torch.zeros(1, 1, 1, device=self.device),
        )

    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        """See :meth:`Policy.predict_noise`; there is no guidance."""
        noise = self.predict_conditional_noise(latents, step, conditioning)
        return NoisePrediction(noise, noise)

    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """See :meth:`Policy.predict_conditional_noise`."""
        output = self._call_network(latents, step)
        self._called = (self._active, latents, step, output)
        noise = output[:, :2]
        samples = len(latents)
        self.ledger.add("unet_forward", samples)
        if noise.requires_grad:
            noise.register_hook(lambda _: self.ledger.add("unet_backward", samples))
        return noise

    def transition(
        self,
        step: torch.Tensor,
        latents: torch.Tensor,
        noise_prediction: torch.Tensor,
        eta: float | None = None,
    ) -> Gaussian:
        """See :meth:`Policy.transition`. A learned variance is part of the call that predicted the
        noise, which is made again, and not counted, if the last call was for something else."""
        eta = self.eta if eta is None else eta
        clean_variance = None
        if self.variance == "learned" and eta > 0:
            level = (1 - self.schedule.alpha(step)).float().to(self.device)
            clean_variance = level * self._output(latents, step)[:, 2].clamp(max=MOST_LOG).exp()
        return transition(self.schedule, step, latents, noise_prediction, eta, clean_variance)

    def _output(self, latents: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """The network's output at the latents, the last call's if that was for these very ones."""
        called, self._called = self._called, None
        if called is not None:
            network, own_latents, own_step, output = called
            same = network is self._active and own_latents is latents and own_step is step
            # A prediction made without gradient serves only where none is wanted.
            if same and (output.requires_grad or not torch.is_grad_enabled()):
                return output
        return self._call_network(latents, step)

    def _call_network(self, latents: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        timesteps = self._timesteps[step.to(self.device)]
        with self.ledger.network("unet"):
            output = self._active(latents, timesteps)
        self.ledger.follow("unet", output)
        return output

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The points themselves; counted as one decoding each."""
        self.ledger.add("vae_decode", len(latents))
        with self.ledger.phase("decode"):
            return latents.float()

    def base_log_density(self, points: torch.Tensor) -> torch.Tensor:
        """log p_base ``[n]`` float64 of the distribution that a perfect sampler of the untrained
        model ends in: the mixture at the schedule's clean end."""
        return self.ring.log_density(points, self.schedule.final_alpha_cumprod)

    def parameters(self) -> list[nn.Parameter]:
        """All of the network's."""
        return list(self.network.parameters())

    def build_flow(self, generator: torch.Generator) -> MixtureFlow:
        """A perceptron like the policy's, zero at first."""
        flow = MixtureFlow(self.schedule.alphas_cumprod, self._timesteps)
        flow.network.initialise(generator)
        flow = flow.to(self.device)
        time_module(flow, lambda: self.ledger, "flow")
        return flow

    def state_dict(self) -> dict[str, torch.Tensor]:
        """See :meth:`Policy.state_dict`."""
        return {name: p.detach().cpu().clone() for name, p in self.network.named_parameters()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """See :meth:`Policy.load_state_dict`."""
        self.network.load_state_dict(dict(state), strict=True)

    def save_weights(self, folder: Path) -> None:
        """``model.safetensors``, in the format of the untrained weights."""
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(self.state_dict(), folder / "model.safetensors")

    @contextmanager
    def base(self) -> Iterator[None]:
        """The untrained model inside."""
        active, self._active = self._active, self._untrained
        try:
            yield
        finally:
            self._active = active


def load_mixture(
    *,
    ledger: Ledger,
    sampling_steps: int = 20,
    eta: float = 1.0,
    variance: Variance = "posterior",
    device: str | torch.device = "cpu",
    weights: Path = WEIGHTS,
) -> MixturePolicy:
    """The policy with its fitted weights.

    Raises:
        OSError: Where the weights cannot be read.
        ValueError: Where there are more sampling steps than timesteps.
    """
    network = PlaneNetwork(3, make_schedule(SCHEDULER, 1).alphas_cumprod)
    network.load_state_dict(safetensors.torch.load_file(weights), strict=True)
    return MixturePolicy(network, RingMixture(), ledger, sampling_steps, eta, variance, device)
