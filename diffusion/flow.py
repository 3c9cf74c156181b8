"""The log-flow network of DAG (arXiv 2406.00633): a UNet encoder with a scalar head."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, DownBlock2D
from torch import nn

from diffusion.policy import Conditioning

WIDTHS = (64, 128, 256, 256)
"""Stage widths at 64 x 64 latents, as released; smaller latents use the first ones."""
HEADS = 8
TIME_WIDTH = 256


class FlowNetwork(nn.Module):
    """f_phi(x_t, t, prompt), one number a latent, all in float32.

    3 x 3 convolution, then stages of one ResNet layer each that halve the resolution down to at
    most 4 x 4, with cross-attention to the text states in all but the last, average pooling and a
    linear head. Released settings: four stages, 8 heads, 32 groups, default initialisation.
    """

    timesteps: torch.Tensor

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        text_width: int,
        timesteps: torch.Tensor,
    ):
        super().__init__()
        self.register_buffer("timesteps", timesteps.clone(), persistent=False)
        self.input = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], TIME_WIDTH)
        stages: list[nn.Module] = []
        for index, width in enumerate(widths):
            before = widths[max(index - 1, 0)]
            if index < len(widths) - 1 or len(widths) == 1:
                stages.append(_attention_stage(before, width, text_width))
            else:
                stages.append(DownBlock2D(before, width, TIME_WIDTH, num_layers=1))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(widths[-1], 1)

    @classmethod
    def create(
        cls,
        latent_shape: tuple[int, ...],
        text_width: int,
        timesteps: torch.Tensor,
        generator: torch.Generator,
    ) -> FlowNetwork:
        """Network for latents ``(channels, size, size)``, initialised from ``generator``."""
        channels, size, _ = latent_shape
        stages = max(1, min(len(WIDTHS), (size // 4).bit_length() - 1))
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
            torch.default_generator.manual_seed(seed)  # of the CPU alone, so fork_rng restores it
            return cls(channels, WIDTHS[:stages], text_width, timesteps.cpu())

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Log-flow residuals ``[n]`` of latents at schedule steps ``[n]``."""
        time = self.time_embedding(self.time(self.timesteps[step]))
        x = self.input(latents.float())
        for stage in self.stages:
            if isinstance(stage, CrossAttnDownBlock2D):
                text = conditioning.conditional.float()
                x, _ = stage(x, time, encoder_hidden_states=text)
            else:
                x, _ = stage(x, time)
        return self.head(x.mean(dim=(2, 3))).squeeze(1)


def _attention_stage(before: int, width: int, text_width: int) -> CrossAttnDownBlock2D:
    return CrossAttnDownBlock2D(
        in_channels=before,
        out_channels=width,
        temb_channels=TIME_WIDTH,
        num_layers=1,
        num_attention_heads=HEADS,
        cross_attention_dim=text_width,
    )
