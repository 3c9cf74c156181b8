"""Size of pictures as JPEG files."""

from __future__ import annotations

import io

import torch
from PIL import Image, features
from torch import Tensor

from rewards.interface import to_uint8

QUALITY = 95
CODEC = f"libjpeg-turbo {features.version('libjpeg_turbo') or 'absent'}"
"""The library that encodes: sizes differ by a few bytes between libraries."""


def jpeg_kilobytes(images: Tensor) -> Tensor:
    """File sizes of images ``[n, 3, H, W]`` in [0, 1]: fp32 ``[n]``, kB of 1000 bytes.

    Pillow's defaults otherwise: chroma at half resolution, standard Huffman tables.
    """
    pictures = to_uint8(images.detach()).movedim(1, -1).contiguous().cpu().numpy()
    sizes = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=QUALITY)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, dtype=torch.float32, device=images.device)
