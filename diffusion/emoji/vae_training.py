"""The emoji model's autoencoder: 64 x 64 pictures to 8 x 8 x 8 latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from diffusion.emoji.composites import Composites
from diffusion.emoji.loop import Schedule, train
from diffusion.lite0 import Lite0

KL_WEIGHT = 0.00768
"""Weight of the KL term, summed over latent dimensions, averaged over images, a pixel value."""
EDGE_WEIGHT = 0.5


def build_vae() -> AutoencoderKL:
    """Factor-8 autoencoder with random weights, 3.3 M parameters."""
    return AutoencoderKL(
        block_out_channels=(24, 48, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
    )


def edge_loss(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of horizontal and vertical neighbour differences."""
    error = images - target
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def train_vae(
    vae: AutoencoderKL,
    composites: Composites,
    weights: torch.Tensor,
    perceptual_weight: float,
    folder: Path,
    schedule: Schedule,
    batch_size: int,
    seed: int,
) -> AutoencoderKL:
    """One phase of training in place: L1, edges, EfficientNet-Lite0 features, KL.

    Pictures are drawn in proportion to ``weights``, on whose device all of it runs. Features are
    compared for a quarter of each batch only: for all of it they would cost half of the step.
    """
    device = weights.device
    vae = vae.to(device, memory_format=torch.channels_last).train()
    perceptual = Lite0().requires_grad_(False).eval().to(device)

    def loss(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        numbers = composites.draw(batch_size, weights, generator)
        images = composites.render(numbers) * 2 - 1
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
            reconstruction = vae.decode(posterior.mean + posterior.std * noise).sample.float()
            some = slice(0, batch_size // 4)
            features = perceptual.stages(reconstruction[some])
            with torch.no_grad():
                targets = perceptual.stages(images[some])
        similar = torch.stack(
            [_feature_distance(*pair) for pair in zip(features, targets, strict=True)]
        ).sum()
        l1 = (reconstruction - images).abs().mean()
        edges = edge_loss(reconstruction, images)
        kl = posterior.kl().float().mean() / images[0].numel()
        total = l1 + EDGE_WEIGHT * edges + perceptual_weight * similar + KL_WEIGHT * kl
        mse = F.mse_loss(reconstruction.detach().clamp(-1, 1), images) / 4
        logged = {"l1": l1, "perceptual": similar, "kl": kl, "psnr_db": -10 * mse.log10()}
        return total, {name: value.detach() for name, value in logged.items()}

    train(nn.ModuleDict({"vae": vae}), loss, schedule, folder, seed)
    vae.register_to_config(scaling_factor=_scaling_factor(vae, composites, seed))
    return vae.eval()


def _feature_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of features normalised over channels, as in LPIPS."""
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()


@torch.no_grad()
def _scaling_factor(vae: AutoencoderKL, composites: Composites, seed: int) -> float:
    """One over the standard deviation of the latents, as in Stable Diffusion (arXiv 2112.10752)."""
    generator = torch.Generator(vae.device).manual_seed(seed)
    alike = torch.ones(len(composites.pictures), device=vae.device)
    numbers = composites.draw(512, alike, generator)
    means = [vae.encode(composites.render(n) * 2 - 1).latent_dist.mean for n in numbers.split(64)]
    return round(1 / torch.cat(means).std().item(), 5)
