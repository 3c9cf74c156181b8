"""Stable Diffusion's own architectures with random weights: time and memory at true scale.

Shapes are those of the published configurations, so that a step costs what it costs with the
weights; pictures are noise. Nothing is downloaded: the vocabulary of CLIP's tokenizer comes with
open_clip.
"""

from __future__ import annotations

import gzip
from contextlib import nullcontext
from importlib.resources import files
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

RANDOM = ("sd15-random", "sdxl-random")
"""Names of the models here."""

SEED = 0
CLIP_MERGES = 48894
"""Pairs of CLIP's vocabulary; with 256 bytes twice and two special tokens 49,408 tokens."""
TEXT_LENGTH = 77

UNET_SD15 = {"sample_size": 64, "cross_attention_dim": 768}
UNET_SDXL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def networks(name: str, device: str = "cpu") -> dict[str, nn.Module]:
    """The networks of a model of ``RANDOM``; with ``device="meta"`` their shapes alone."""
    meta = device == "meta"
    with torch.device("meta") if meta else nullcontext(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        if name == "sd15-random":
            return {
                "unet": UNet2DConditionModel(**UNET_SD15),
                "vae": AutoencoderKL(**VAE, sample_size=512, scaling_factor=0.18215),
                "text_encoder": CLIPTextModel(_text_config(CLIP_L)),
            }
        return {
            "unet": UNet2DConditionModel(**UNET_SDXL),
            "vae": AutoencoderKL(**VAE, sample_size=1024, scaling_factor=0.13025),
            "text_encoder": CLIPTextModel(_text_config(CLIP_L)),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(CLIP_G)),
        }


def build_pipeline(name: str, dtype: torch.dtype) -> Any:
    """The pipeline of a model of ``RANDOM``, the same weights every time."""
    parts: dict[str, Any] = {key: part.to(dtype) for key, part in networks(name).items()}
    parts |= {"tokenizer": clip_tokenizer("<|endoftext|>"), "scheduler": scheduler()}
    if name == "sdxl-random":
        return StableDiffusionXLPipeline(**parts, tokenizer_2=clip_tokenizer("!"))
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def scheduler() -> DDIMScheduler:
    """The schedule that both were trained on, as their folders state it."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer, from the vocabulary that open_clip carries."""
    packed = (files("open_clip") / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")[1 : CLIP_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    characters = _byte_characters()
    tokens = [
        *characters,
        *(f"{character}</w>" for character in characters),
        *("".join(pair) for pair in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=TEXT_LENGTH,
        pad_token=pad_token,
    )


def _byte_characters() -> list[str]:
    """The characters that stand for bytes, in the order of CLIP's vocabulary: those that print
    as themselves, then the rest."""
    return sorted(ByteLevel.alphabet(), key=ord)


def _text_config(sizes: dict[str, Any]) -> CLIPTextConfig:
    return CLIPTextConfig(
        **sizes,
        vocab_size=CLIP_MERGES + 514,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
