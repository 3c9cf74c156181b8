"""What a method sees of the model it aligns: a policy over the denoising decision process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn

from diffusion.kernel import Gaussian, Schedule, transition
from diffusion.ledger import Ledger


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts."""

    conditional: torch.Tensor
    """``[n, tokens, width]``."""
    unconditional: torch.Tensor
    """The empty prompt's, ``[1, tokens, width]``."""
    pooled: torch.Tensor | None = None
    """``[n, pooled width]`` of a model that is conditioned on it too, such as SDXL."""
    unconditional_pooled: torch.Tensor | None = None
    """The empty prompt's, ``[1, pooled width]``."""

    def __len__(self) -> int:
        return len(self.conditional)

    def __getitem__(self, index: slice | torch.Tensor | Sequence[int]) -> Conditioning:
        return self.replaced(lambda values: values[index])

    def replaced(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """With ``change`` made to what there is of each prompt."""
        pooled = None if self.pooled is None else change(self.pooled)
        return Conditioning(
            change(self.conditional), self.unconditional, pooled, self.unconditional_pooled
        )

    @staticmethod
    def joined(parts: Sequence[Conditioning]) -> Conditioning:
        """Prompts of all parts, which are of one model."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.conditional for part in parts]),
            parts[0].unconditional,
            torch.cat(pooled) if pooled else None,
            parts[0].unconditional_pooled,
        )


@dataclass(frozen=True)
class NoisePrediction:
    """Noise predictions of one UNet call, ``[n, ...]`` each."""

    guided: torch.Tensor
    """unconditional + guidance_scale (conditional - unconditional)."""
    conditional: torch.Tensor


class Policy(ABC):
    """A diffusion model as a policy: p_theta(x_s | x_t, prompt) on a fixed grid of steps.

    Everything that costs is counted in ``ledger``; ``decode`` is a phase of it. ``step`` arguments
    are int64 ``[n]``, indices into ``schedule`` (0 is the noisiest), one for each sample.
    """

    schedule: Schedule
    ledger: Ledger
    eta: float
    guidance_scale: float
    latent_shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    output: ClassVar[Literal["image", "point"]] = "image"
    """What ``decode`` makes: images ``[n, 3, h, w]`` in [0, 1], or points of the plane."""
    rollout_batch_size: ClassVar[int] = 32
    """Trajectories of a round that are sampled at a time."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, without gradient."""

    @abstractmethod
    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        """Both branches of classifier-free guidance, with gradient where enabled.

        Counts two UNet samples for each latent, one where ``guidance_scale`` is 1.
        """

    @abstractmethod
    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """The conditional branch alone; counts one UNet sample for each latent."""

    def transition(
        self,
        step: torch.Tensor,
        latents: torch.Tensor,
        noise_prediction: torch.Tensor,
        eta: float | None = None,
    ) -> Gaussian:
        """p_theta(x_s | x_t) of the sampler, given the noise prediction at x_t.

        ``eta`` is the policy's own by default. The deviation is the schedule's, unless the model
        has one of its own for each state.
        """
        eta = self.eta if eta is None else eta
        return transition(self.schedule, step, latents, noise_prediction, eta)

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """What rewards score, float32 and differentiable: images ``[n, 3, h, w]`` in [0, 1], or
        points ``[n, 2]`` where ``output`` says so."""

    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters."""

    @abstractmethod
    def build_flow(self, generator: torch.Generator) -> nn.Module:
        """A new float32 network ``log_flow(latents, step, conditioning) -> [n]``."""

    @abstractmethod
    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of the trainable parameters by name."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set the trainable parameters; names and shapes must match."""

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write what training changed, in the format other programs load."""

    @abstractmethod
    @contextmanager
    def base(self) -> Iterator[None]:
        """The untrained model inside."""
        yield
