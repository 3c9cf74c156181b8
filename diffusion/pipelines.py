"""Load a model in Stable Diffusion's folder layout as a policy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from diffusion import architectures
from diffusion.kernel import make_schedule
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.randomness import generator
from diffusion.text_encoding import ClipText, ClipTextPair, TextEncoding
from diffusion.trainable import FullWeights, LoRA, TrainableWeights

EMBEDDED = {"emoji": "emoji/weights"}
"""Names of models that ship with the package, and their folders inside it."""
Attention = Literal["sdpa", "eager", "sliced", "xformers"]


class ModelError(ValueError):
    """A model cannot be loaded; the message is one line for the user."""


def model_path(name: str) -> str:
    """The folder of an embedded model; any other name (folder or hub id) unchanged."""
    if name in EMBEDDED:
        return str(Path(str(resources.files("diffusion"))) / EMBEDDED[name])
    return name


def load_pipeline(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The diffusers pipeline, Stable Diffusion's or SDXL's, of an embedded model, a folder, a hub
    id, or a name of ``architectures.RANDOM``; safetensors only.

    Raises:
        ModelError: Where nothing loads, naming what is missing.
    """
    if name in architectures.RANDOM:
        return architectures.build_pipeline(name, dtype)
    path = model_path(name)
    if (name in EMBEDDED or Path(path).exists()) and not (Path(path) / "model_index.json").exists():
        raise ModelError(f"model {name!r}: no model_index.json in {path}")
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        kind = DiffusionPipeline.load_config(path).get("_class_name")
        if kind == "StableDiffusionXLPipeline":
            return StableDiffusionXLPipeline.from_pretrained(
                path, dtype=dtype, use_safetensors=True
            )
        if kind != "StableDiffusionPipeline":
            raise ModelError(f"model {name!r} is a {kind}, not Stable Diffusion 1 or SDXL")
        return StableDiffusionPipeline.from_pretrained(
            path, dtype=dtype, safety_checker=None, use_safetensors=True
        )
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {name!r} cannot be loaded: {reason}") from error


@dataclass(frozen=True)
class Economies:
    """Ways to spend less memory or time on the same numbers, up to rounding."""

    gradient_checkpointing: bool = False
    """UNet and decoder keep the inputs of their blocks only, and compute them again for a
    gradient: a forward pass more, several times less memory."""
    vae_slicing: bool = False
    """Pictures are decoded one at a time."""
    attention: Attention = "sdpa"
    """Of the UNet: torch's scaled_dot_product_attention, plain products, those a slice at a time,
    or xformers', where that is installed."""
    compile: bool = False
    """The UNet through ``torch.compile``."""

    def apply(self, unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
        """Set them; raises ``ModelError`` where xformers is asked for and not there."""
        if self.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            vae.enable_gradient_checkpointing()
        if self.vae_slicing:
            vae.enable_slicing()
        if self.attention == "eager":
            unet.set_attn_processor(AttnProcessor())
        elif self.attention == "sliced":
            unet.set_attention_slice("auto")
        elif self.attention == "xformers":
            try:
                unet.enable_xformers_memory_efficient_attention()
            except (ImportError, ValueError) as error:  # not installed, or no GPU
                reason = str(error).strip().splitlines()[0]
                raise ModelError(f"attention xformers cannot be used: {reason}") from error
        if self.compile:
            unet.compile()


def load_policy(
    name: str,
    *,
    seed: int,
    ledger: Ledger,
    sampling_steps: int = 50,
    guidance_scale: float = 5.0,
    eta: float = 1.0,
    trainable: Literal["lora", "full"] = "lora",
    lora_rank: int = 4,
    lora_alpha: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    economies: Economies = Economies(),
) -> LatentDiffusion:
    """A policy ready to be trained; ``seed`` decides the adapters' initial weights.

    ``lora_alpha`` is ``lora_rank`` by default, so that adapters are not scaled. With float16 the
    autoencoder stays in float32, in which alone it is sure not to overflow.

    Raises:
        ModelError: Where the model does not load, or not with these economies.
        ValueError: Where its scheduler cannot be used, naming the setting; for a whole UNet in
            float16, which loses small updates.
    """
    if trainable == "full" and dtype == torch.float16:
        raise ValueError("a whole UNet does not train in float16: take bfloat16 or float32")
    pipeline = load_pipeline(name, dtype)
    unet, vae = pipeline.unet, pipeline.vae
    if dtype == torch.float16:
        vae.float()
    text = _text_encoding(pipeline, ledger)
    for module in (unet, vae, text.network):
        module.requires_grad_(False).eval().to(device)
    if torch.device(device).type == "cpu":  # 20 % faster convolutions there
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    weights: TrainableWeights
    if trainable == "lora":
        alpha = lora_rank if lora_alpha is None else lora_alpha
        weights = LoRA(unet, lora_rank, alpha, generator(seed, "lora"))
    else:
        weights = FullWeights(unet)
    economies.apply(unet, vae)
    return LatentDiffusion(
        unet=unet,
        vae=vae,
        text=text,
        schedule=make_schedule(pipeline.scheduler.config, sampling_steps),
        trainable=weights,
        ledger=ledger,
        eta=eta,
        guidance_scale=guidance_scale,
    )


def _text_encoding(pipeline: Any, ledger: Ledger) -> TextEncoding:
    if not isinstance(pipeline, StableDiffusionXLPipeline):
        return ClipText(pipeline.text_encoder, pipeline.tokenizer, ledger)
    return ClipTextPair(
        (pipeline.text_encoder, pipeline.text_encoder_2),
        (pipeline.tokenizer, pipeline.tokenizer_2),
        ledger,
        pixels=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
        zero_empty=bool(pipeline.config.force_zeros_for_empty_prompt),
    )
