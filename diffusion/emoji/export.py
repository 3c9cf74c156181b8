"""Write the trained networks as a Stable Diffusion pipeline folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from diffusion.emoji.text import save_tokenizer
from diffusion.emoji.unet_training import SCHEDULER


def export_pipeline(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    folder: Path,
) -> None:
    """Save in half precision (a quarter of a percent of a weight at most) in diffusers' layout."""
    unet, vae, text_encoder = (copy.deepcopy(m).to(torch.half) for m in (unet, vae, text_encoder))
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (unet, vae, text_encoder):  # safetensors wants plain strides
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()
    pipeline.save_pretrained(folder, safe_serialization=True)
    _forget_origin(folder / "vae" / "config.json")
    save_tokenizer(tokenizer, folder / "tokenizer")


def _forget_origin(config: Path) -> None:
    """diffusers writes down the folder a part was loaded from, which is nobody's business here."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")
