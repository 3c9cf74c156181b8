"""Minus the size of the picture as a JPEG file."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.jpeg_codec import CODEC, jpeg_kilobytes


@register
class JpegCompressibility(Reward):
    """Minus the kilobytes (of 1000 bytes) of the picture as a JPEG file of quality 95."""

    name = "jpeg_compressibility"
    version = f"1 ({CODEC})"
    unit = "kB"
    range = (None, 0.0)
    differentiable = False
    source = "Black et al., Training Diffusion Models with Reinforcement Learning, arXiv 2305.13301"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return -jpeg_kilobytes(images)
