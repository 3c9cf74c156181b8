"""Stable Diffusion, or any model in its folder layout, as a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from diffusion.flow import FlowNetwork
from diffusion.kernel import Schedule
from diffusion.ledger import Ledger, time_module
from diffusion.policy import Conditioning, NoisePrediction, Policy
from diffusion.trainable import TrainableWeights


class LatentDiffusion(Policy):
    """A Stable Diffusion 1 style model: text encoder, UNet, autoencoder.

    Only the UNet's trainable weights ever change; text encoder and autoencoder are frozen.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        schedule: Schedule,
        trainable: TrainableWeights,
        ledger: Ledger,
        eta: float,
        guidance_scale: float,
    ):
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.schedule, self.trainable, self.ledger = schedule, trainable, ledger
        self.eta, self.guidance_scale = eta, guidance_scale
        size = unet.config.sample_size
        self.latent_shape = (unet.config.in_channels, size, size)
        self.device, self.dtype = unet.device, unet.dtype
        # int64 timesteps on the model's device: float16 or bfloat16 would round 981 to 980.
        self._timesteps = schedule.timesteps.to(self.device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Last hidden states of the text encoder, padded to its full length."""
        return Conditioning(self._text_states(list(prompts)), self._text_states([""]))

    def _text_states(self, prompts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        with self.ledger.network("text_encoder"):
            return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        """See :meth:`Policy.predict_noise`; both branches in one batch."""
        if self.guidance_scale == 1:
            conditional = self.predict_conditional_noise(latents, step, conditioning)
            return NoisePrediction(conditional, conditional)
        empty = conditioning.unconditional.expand(len(latents), -1, -1)
        states = torch.cat([empty, conditioning.conditional])
        both = self._call_unet(latents.repeat(2, 1, 1, 1), step.repeat(2), states)
        unconditional, conditional = both.chunk(2)
        guided = unconditional + self.guidance_scale * (conditional - unconditional)
        return NoisePrediction(guided, conditional)

    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """See :meth:`Policy.predict_conditional_noise`."""
        return self._call_unet(latents, step, conditioning.conditional)

    def _call_unet(
        self, latents: torch.Tensor, step: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        timesteps = self._timesteps[step.to(self.device)]
        with self.ledger.network("unet"):
            output = self.unet(latents.to(self.dtype), timesteps, states.to(self.dtype)).sample
        self.ledger.follow("unet", output)
        samples = len(latents)
        self.ledger.add("unet_forward", samples)
        if output.requires_grad:
            output.register_hook(lambda _: self.ledger.add("unet_backward", samples))
        return output.float()

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

    @contextmanager
    def base(self) -> Iterator[None]:
        """The untrained model inside."""
        with self.trainable.disabled():
            yield
