"""Small changes of a picture after which a reward should still say the same.

What a picture shows survives them; what was fitted to the pixels of one picture, to fool the
network that scores it, mostly does not. The gap between a reward of the pictures as they are and
after such a change is compared with that of the untrained model (``results/hacking.py``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MARGIN = 1 / 16
"""Share of height and width that a crop takes away on each side."""
JPEG_QUALITY = 80
NOISE = 0.05
"""Standard deviation of the noise, of pixels in [0, 1]: 13 of 255 levels."""

Augmentation = Callable[[Tensor, Sequence[torch.Generator]], Tensor]
"""Images ``[n, 3, H, W]`` in [0, 1], and a CPU generator for each, to images of that shape and
range. The same generators give the same images."""


def flip(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Left and right exchanged."""
    return images.flip(-1)


def crop(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """The middle 7/8 of height and width, enlarged to the former size (bilinear)."""
    height, width = images.shape[-2:]
    top, left = round(height * MARGIN), round(width * MARGIN)
    middle = images[..., top : height - top, left : width - left]
    return torch.nn.functional.interpolate(
        middle, size=(height, width), mode="bilinear", antialias=True
    ).clamp(0, 1)


def jpeg(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Compressed to a JPEG file of quality 80, and read again."""
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
    read = np.stack([_through_jpeg(picture) for picture in levels])
    return (torch.from_numpy(read).movedim(-1, 1).to(images) / 255).contiguous()


def _through_jpeg(picture: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(file))


def noise(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """With normal noise of standard deviation 0.05 on every value."""
    drawn = [torch.randn(images.shape[1:], generator=generator) for generator in generators]
    return (images + NOISE * torch.stack(drawn).to(images)).clamp(0, 1)


AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": flip,
    "crop": crop,
    "jpeg": jpeg,
    "noise": noise,
}
