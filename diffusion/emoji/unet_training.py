"""The emoji model's denoiser and text encoder, trained together on the autoencoder's latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion.emoji.composites import (
    BACKGROUND_NAMES,
    COMPOSITES_PER_PICTURE,
    Composites,
    caption,
    draw_mentions,
)
from diffusion.emoji.loop import Schedule, train
from diffusion.emoji.text import CONTEXT_LENGTH

PROMPT_DROPOUT = 0.1
"""Share of captions replaced by the empty one, for classifier-free guidance."""
BARE_NOUNS = 0.1
"""Share of the others that are a noun without an article."""
SNR_GAMMA = 5.0
"""Loss weight min(SNR, gamma) / SNR (Min-SNR, arXiv 2303.09556)."""

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""Stable Diffusion 1's own noise schedule."""


def build_unet(latent_channels: int = 8, text_width: int = 128) -> UNet2DConditionModel:
    """Two-level UNet on 8 x 8 latents with cross-attention on both levels, 9.5 M parameters."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(96, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=text_width,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """CLIP text transformer of width 128 and two layers."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


@torch.no_grad()
def encode_all(vae: AutoencoderKL, composites: Composites, cache: Path) -> torch.Tensor:
    """Latent (mean, standard deviation) of every composite: fp16 ``[n, 2, 8, 8, 8]``, cached.

    Computed where the composites are, returned on the CPU.
    """
    if cache.exists():
        return torch.load(cache, weights_only=True)
    pairs = []
    device = composites.cutouts.device
    vae = vae.to(device, memory_format=torch.channels_last)
    for numbers in torch.arange(len(composites), device=device).split(256):
        images = composites.render(numbers) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist
        pairs.append(torch.stack([posterior.mean, posterior.std], dim=1).half().cpu())
    latents = torch.cat(pairs)
    torch.save(latents, cache.with_suffix(".tmp"))
    cache.with_suffix(".tmp").replace(cache)
    return latents


class Captions:
    """Tokens of every caption there can be, so that training draws rows of a table.

    A picture has 19: with and without its style, each without a background and on one of eight,
    and last the bare noun, as in the prompt list of DDPO. The empty caption is the table's end.
    """

    def __init__(self, composites: Composites, tokenizer: CLIPTokenizer, device: torch.device):
        texts = []
        for picture in composites.pictures:
            for style in (None, picture.style):
                for background in (None, *BACKGROUND_NAMES):
                    texts.append(caption(picture.subject, style, background))
            texts.append(picture.subject)
        texts.append("")
        # Padded to the full length, as the pipeline does.
        tokens = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=CONTEXT_LENGTH,
            return_tensors="pt",
        )
        self.tokens = tokens.input_ids.to(device)
        self.styles = 1 + len(BACKGROUND_NAMES)
        self.per_picture = 2 * self.styles + 1

    def draw(self, numbers: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Tokens ``[n, 24]`` of one caption for each composite, a tenth of them empty."""
        n, device = len(numbers), numbers.device
        with_style, with_background = draw_mentions(n, generator).unbind(1)
        dropped = torch.rand(n, generator=generator, device=device) < PROMPT_DROPOUT
        bare = torch.rand(n, generator=generator, device=device) < BARE_NOUNS
        background = numbers % COMPOSITES_PER_PICTURE // 2
        row = with_style * self.styles + with_background * (1 + background)
        row = torch.where(bare, self.per_picture - 1, row)
        row = row + numbers // COMPOSITES_PER_PICTURE * self.per_picture
        return self.tokens[torch.where(dropped, len(self.tokens) - 1, row)]


def train_unet(
    composites: Composites,
    latents: torch.Tensor,
    scaling_factor: float,
    tokenizer: CLIPTokenizer,
    weights: torch.Tensor,
    folder: Path,
    schedule: Schedule,
    batch_size: int,
    seed: int,
) -> nn.ModuleDict:
    """Noise-prediction training; pictures drawn in proportion to ``weights``, on their device."""
    device = weights.device
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        torch.manual_seed(seed)
        unet = build_unet().to(memory_format=torch.channels_last)
        text_encoder = build_text_encoder(len(tokenizer))
    modules = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(device)
    alphas_cumprod = DDIMScheduler(**SCHEDULER).alphas_cumprod.to(device)
    latents = latents.to(device)
    captions = Captions(composites, tokenizer, device)

    def loss(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        numbers = composites.draw(batch_size, weights, generator)
        mean, std = latents[numbers].float().unbind(1)
        noise, posterior_noise = torch.randn(
            2, *mean.shape, generator=generator, device=device
        ).unbind(0)
        clean = (mean + std * posterior_noise) * scaling_factor
        timesteps = torch.randint(1000, (batch_size,), generator=generator, device=device)
        alpha = alphas_cumprod[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        states = text_encoder(captions.draw(numbers, generator)).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        error = (unet(noisy, timesteps, states).sample - noise).square().mean(dim=(1, 2, 3))
        snr = (alpha / (1 - alpha)).flatten()
        return (error * snr.clamp(max=SNR_GAMMA) / snr).mean(), {"mse": error.detach().mean()}

    return train(modules, loss, schedule, folder, seed).eval()
