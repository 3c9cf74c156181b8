"""Pictures that rewards are checked on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffusion.randomness import generator

PROMPTS = [
    "a fox, fluent style, on a blue background",
    "an owl, noto style, on a red background",
    "a cat, twemoji style, on a white background",
]
BACKGROUNDS = [(66, 120, 214), (214, 58, 52), (250, 250, 250)]
"""Blue, red and white, as the prompts ask for."""
SIZE = 64


def varied() -> Tensor:
    """A disc, smooth patches of colour, and noise: ``[3, 3, 64, 64]``, from 0.02 to 0.98."""
    source = generator(0, "pictures")
    axis = torch.linspace(-1, 1, SIZE)
    inside = (axis[:, None] ** 2 + axis**2 < 0.4).float()
    low, high = torch.rand(2, 3, 1, 1, generator=source)
    disc = low + (high - low) * inside
    patches = interpolate(torch.rand(1, 3, 6, 6, generator=source), (SIZE, SIZE), mode="bicubic")
    noise = torch.rand(3, SIZE, SIZE, generator=source)
    return torch.stack([disc, patches[0], noise]).clamp(0.02, 0.98)


def plain(colours: list[tuple[int, int, int]]) -> Tensor:
    """Pictures of one colour each, given as 0-255: ``[n, 3, 64, 64]``."""
    values = torch.tensor(colours, dtype=torch.float32) / 255
    return values.view(-1, 3, 1, 1).repeat(1, 1, SIZE, SIZE)


def saved(images: Tensor) -> Tensor:
    """The pictures as 8 bits a channel keep them."""
    return (images * 255).round() / 255
