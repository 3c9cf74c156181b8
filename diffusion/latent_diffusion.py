"""Stable Diffusion 1 or SDXL, or any model in their folder layouts, as a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from diffusion.flow import FlowNetwork
from diffusion.kernel import Schedule
from diffusion.ledger import Ledger, time_module
from diffusion.policy import Conditioning, NoisePrediction, Policy
from diffusion.text_encoding import TextEncoding
from diffusion.trainable import TrainableWeights

GRADIENT_SCALE = 2.0**16
"""Of gradients inside a float16 UNet, which would lose most of them: those of a loss averaged over
thousands of transitions lie below 1e-7. Where mixed precision usually begins."""


class LatentDiffusion(Policy):
    """A Stable Diffusion style model: text encoders, UNet, autoencoder.

    Only the UNet's trainable weights ever change; text encoders and autoencoder are frozen. With a
    float16 UNet, states stay in float32, and gradients are scaled inside it.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text: TextEncoding,
        schedule: Schedule,
        trainable: TrainableWeights,
        ledger: Ledger,
        eta: float,
        guidance_scale: float,
    ):
        self.unet, self.vae, self.text, self.text_encoder = unet, vae, text, text.network
        self.schedule, self.trainable, self.ledger = schedule, trainable, ledger
        self.eta, self.guidance_scale = eta, guidance_scale
        size = unet.config.sample_size
        self.latent_shape = (unet.config.in_channels, size, size)
        self.device = unet.device
        self._half = unet.dtype == torch.float16
        self.dtype = torch.float32 if self._half else unet.dtype
        for parameter in self.parameters() if self._half else []:
            parameter.register_hook(lambda gradient: gradient / GRADIENT_SCALE)
        # int64 timesteps on the model's device: float16 or bfloat16 would round 981 to 980.
        self._timesteps = schedule.timesteps.to(self.device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See :meth:`Policy.encode`."""
        return self.text.encode(prompts)

    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        """See :meth:`Policy.predict_noise`; both branches in one batch."""
        if self.guidance_scale == 1:
            conditional = self.predict_conditional_noise(latents, step, conditioning)
            return NoisePrediction(conditional, conditional)
        c, n = conditioning, len(latents)
        states = torch.cat([c.unconditional.expand(n, -1, -1), c.conditional])
        pooled = c.pooled
        if pooled is not None and c.unconditional_pooled is not None:
            pooled = torch.cat([c.unconditional_pooled.expand(n, -1), pooled])
        both = self._call_unet(latents.repeat(2, 1, 1, 1), step.repeat(2), states, pooled)
        unconditional, conditional = both.chunk(2)
        guided = unconditional + self.guidance_scale * (conditional - unconditional)
        return NoisePrediction(guided, conditional)

    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """See :meth:`Policy.predict_conditional_noise`."""
        return self._call_unet(latents, step, conditioning.conditional, conditioning.pooled)

    def _call_unet(
        self,
        latents: torch.Tensor,
        step: torch.Tensor,
        states: torch.Tensor,
        pooled: torch.Tensor | None,
    ) -> torch.Tensor:
        timesteps = self._timesteps[step.to(self.device)]
        dtype = self.unet.dtype
        added = self.text.added(pooled, dtype)
        inside = ScaledGradient.apply(latents, 1 / GRADIENT_SCALE) if self._half else latents
        with self.ledger.network("unet"):
            output = self.unet(
                inside.to(dtype), timesteps, states.to(dtype), added_cond_kwargs=added
            ).sample
        self.ledger.follow("unet", output)
        samples = len(latents)
        self.ledger.add("unet_forward", samples)
        if output.requires_grad:
            output.register_hook(lambda _: self.ledger.add("unet_backward", samples))
        # Scaled in float32: what is to be saved is too small for float16 already.
        output = output.float()
        return ScaledGradient.apply(output, GRADIENT_SCALE) if self._half else output

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See :meth:`Policy.decode`."""
        self.ledger.add("vae_decode", len(latents))
        with self.ledger.phase("decode"):
            scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
            with self.ledger.network("vae"):
                decoded = self.vae.decode(scaled).sample
            self.ledger.follow("vae", decoded)
            return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def parameters(self) -> list[nn.Parameter]:
        """The LoRA matrices, or all UNet weights."""
        return self.trainable.parameters()

    def build_flow(self, generator: torch.Generator) -> FlowNetwork:
        """A UNet encoder with cross-attention to the text states, as in DAG."""
        flow = FlowNetwork.create(
            latent_shape=self.latent_shape,
            text_width=self.unet.config.cross_attention_dim,
            timesteps=self._timesteps,
            generator=generator,
        ).to(self.device)
        time_module(flow, lambda: self.ledger, "flow")
        return flow

    def state_dict(self) -> dict[str, torch.Tensor]:
        """See :meth:`Policy.state_dict`."""
        return self.trainable.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """See :meth:`Policy.load_state_dict`."""
        self.trainable.load_state_dict(state)

    def save_weights(self, folder: Path) -> None:
        """LoRA as ``pytorch_lora_weights.safetensors``, which diffusers' ``load_lora_weights``
        reads; a fully trained UNet in diffusers' own folder layout."""
        self.trainable.save(folder)

    def load_weights(self, folder: Path) -> None:
        """Set the weights to those of a folder that ``save_weights`` wrote; see
        :meth:`diffusion.trainable.TrainableWeights.load`."""
        self.trainable.load(folder)

    @contextmanager
    def base(self) -> Iterator[None]:
        """The untrained model inside."""
        with self.trainable.disabled():
            yield


class ScaledGradient(torch.autograd.Function):
    """Its argument, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
        """``values`` as they are."""
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient times the factor."""
        return gradients[0] * ctx.factor, None
