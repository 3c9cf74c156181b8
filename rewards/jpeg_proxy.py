"""A differentiable stand-in for minus the size of the picture as a JPEG file.

Everything JPEG does before its entropy coder is kept (colour transform, halved chroma, 8 x 8 cosine
transform, division by the quantisation tables); rounding and Huffman coding are replaced by a
smooth count of bits, log2(1 + c²) for each quantised value c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.jpeg_codec import QUALITY

# Tables K.1 (luminance) and K.2 (chrominance) of ITU-T T.81, Annex K, row by row.
LUMINANCE = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
CHROMINANCE = """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""

INTERCEPT_KB = 0.745
KB_PER_BIT = 1.902e-4
"""Fitted by :func:`calibrate` to 800 of the 64 x 64 composites that the emoji model was trained on,
half of them blurred (Gaussian of 0.7 pixels) towards what a decoder makes: 1.2 to 3.6 kB,
correlation 0.991, mean absolute error 0.043 kB (Pillow 13.0, libjpeg-turbo 3.2)."""


@register
class JpegProxy(Reward):
    """Minus the kilobytes that a smooth model of JPEG at quality 95 predicts.

    The level is calibrated at 64 x 64; at other sizes only the order of pictures of one size means
    something. Judge by ``jpeg_compressibility``, for which this one stands in.
    """

    name = "jpeg_proxy"
    version = "1"
    unit = "kB (predicted)"
    range = (None, -INTERCEPT_KB)
    differentiable = True
    source = "this project: closed form after ITU-T T.81, calibrated to Pillow's sizes"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return -(INTERCEPT_KB + KB_PER_BIT * smooth_bits(images))


def smooth_bits(images: Tensor) -> Tensor:
    """Smooth count of bits ``[n]`` of images ``[n, 3, H, W]`` in [0, 1].

    Sum of log2(1 + c²) over the AC coefficients c of all blocks and over the differences between
    the DC coefficients of neighbouring blocks, all divided by their quantisation steps.
    """
    right, bottom = -images.shape[-1] % 16, -images.shape[-2] % 16
    padded = F.pad(images * 255, (0, right, 0, bottom), mode="replicate")
    luma, chroma = to_ycbcr(padded).split([1, 2], dim=1)
    return _plane_bits(luma, LUMINANCE) + _plane_bits(F.avg_pool2d(chroma, 2), CHROMINANCE)


def to_ycbcr(rgb: Tensor) -> Tensor:
    """ITU-R BT.601 luma and colour differences of RGB ``[n, 3, H, W]``, without offsets."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402], dim=1)


def quantisation_steps(table: str, quality: int = QUALITY) -> Tensor:
    """Annex K table scaled to a quality of 50 to 100 by the rule of the IJG: ``[8, 8]``."""
    steps = torch.tensor([int(word) for word in table.split()]).view(8, 8)
    return ((steps * (200 - 2 * quality) + 50) // 100).clamp(1, 255)


def cosine_basis() -> Tensor:
    """Orthonormal eight-point DCT-II, frequency by position: float64 ``[8, 8]``."""
    k = torch.arange(8, dtype=torch.float64)
    basis = 0.5 * torch.cos((2 * k + 1) * k[:, None] * math.pi / 16)
    basis[0] *= math.sqrt(0.5)
    return basis


def _plane_bits(planes: Tensor, table: str) -> Tensor:
    basis = cosine_basis().to(planes)
    blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    coefficients = basis @ blocks @ basis.T / quantisation_steps(table).to(planes)
    # [n, planes, blocks in reading order, 64 coefficients]; the first coefficient is the DC one.
    coefficients = coefficients.flatten(-2).flatten(2, 3)
    dc, ac = coefficients[..., 0], coefficients[..., 1:]
    return _bits(dc.diff(dim=-1)) + _bits(ac)


def _bits(values: Tensor) -> Tensor:
    return torch.log2(1 + values.square()).flatten(1).sum(1)


def calibrate(images: Tensor, kilobytes: Tensor) -> tuple[float, float]:
    """Least squares of true sizes ``[n]`` on :func:`smooth_bits`: (intercept in kB, kB a bit).

    How :data:`INTERCEPT_KB` and :data:`KB_PER_BIT` were found.
    """
    bits = smooth_bits(images.double())
    design = torch.stack([torch.ones_like(bits), bits], dim=1)
    intercept, slope = torch.linalg.lstsq(design, kilobytes.double()[:, None]).solution[:, 0]
    return intercept.item(), slope.item()
