"""Pictures as published scorers are given them.

Two ways, because they are not the same numbers. The *reference* is the release's: Pillow resizes,
which rounds to 8 bits after each of its two passes. The *differentiable* way resizes the unrounded
values, bicubic and antialiased as Pillow does. Bilinear resizing, or none of the antialiasing, as
some published trainers have it, moves pixels by up to 19 and 79 of 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Cropped:
    """CLIP's own: the shorter side to ``size``, the longer one rounded down, and the middle of it.

    Images are floats ``[n, 3, H, W]`` in [0, 1]; what comes out is ``[n, 3, size, size]``, less
    ``mean`` and over ``std``.
    """

    size: int = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def reference(self, images: Tensor) -> Tensor:
        """By Pillow, of pictures in 8 bits."""
        height, width = self._resized(images)
        levels = (images * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        pictures = [
            np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC))
            for each in levels
        ]
        found = torch.from_numpy(np.stack(pictures)).movedim(-1, 1).to(images.device)
        return normalised(self._middle(found.float() / 255), self.mean, self.std)

    def differentiable(self, images: Tensor) -> Tensor:
        """Of unrounded values, with gradients; what bicubic overshoots is not cut."""
        target = self._resized(images)
        if target != tuple(images.shape[-2:]):
            images = F.interpolate(images, size=target, mode="bicubic", antialias=True)
        return normalised(self._middle(images), self.mean, self.std)

    def _resized(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        shorter = min(height, width)
        return self.size * height // shorter, self.size * width // shorter

    def _middle(self, images: Tensor) -> Tensor:
        # Rounded as torchvision's CenterCrop does.
        top, left = (round((side - self.size) / 2) for side in images.shape[-2:])
        return images[:, :, top : top + self.size, left : left + self.size]


class Squashed(Cropped):
    """BLIP's: both sides to ``size``, whatever they were, so that nothing is cut off."""

    def _resized(self, images: Tensor) -> tuple[int, int]:
        return self.size, self.size


def padded(
    images: Tensor,
    size: int,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
    antialias: bool = True,
) -> Tensor:
    """HPSv2's: the longer side to ``size``, the rest black, ``[n, 3, size, size]``.

    The release resizes tensors, not Pillow's pictures, so that this is its reference too.
    """
    height, width = images.shape[-2:]
    scale = size / max(height, width)
    target = round(height * scale), round(width * scale)
    if target != (height, width):
        images = F.interpolate(images, size=target, mode="bicubic", antialias=antialias)
    rows, columns = size - target[0], size - target[1]
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return normalised(F.pad(images, sides), mean, std)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """``(images - mean) / std`` by channel."""
    shape = (3, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def in_batches(
    function: Callable[[Tensor, Sequence[str]], Tensor],
    images: Tensor,
    prompts: Sequence[str],
    size: int = 32,
) -> Tensor:
    """``function`` of so many images and their prompts at a time, which bounds the memory of large
    networks."""
    starts = range(0, len(images), size)
    return torch.cat([function(images[i : i + size], prompts[i : i + size]) for i in starts])
