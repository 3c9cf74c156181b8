"""Plain statistics of pictures, in which known ways of gaming a reward show.

A compressed file is smaller where pictures blur or their background is flat; learned preferences
rise with saturation and gloss; gradients can hide high-frequency noise. Each statistic is a number
an image; what counts is its change against the untrained model from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Pictures = NDArray[np.float64]
"""``[n, 3, height, width]`` in [0, 1]."""
Values = NDArray[np.float64]
"""``[n]``."""

BORDER = 5
"""Width of the border in pixels, or a quarter of a picture too small for it."""


def brightness(pictures: Pictures) -> Values:
    """Mean luma, 0 to 1."""
    return _luma(pictures).mean(axis=(1, 2))


def contrast(pictures: Pictures) -> Values:
    """Standard deviation of luma, 0 to 0.5."""
    return _luma(pictures).std(axis=(1, 2))


def saturation(pictures: Pictures) -> Values:
    """Mean of the largest minus the smallest channel, 0 to 1."""
    return (pictures.max(axis=1) - pictures.min(axis=1)).mean(axis=(1, 2))


def sharpness(pictures: Pictures) -> Values:
    """Variance of the five-point Laplacian of luma; low where pictures blur."""
    luma = _luma(pictures)
    middle = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return (around - 4 * middle).var(axis=(1, 2))


def high_frequency(pictures: Pictures) -> Values:
    """Share of luma's power, its mean left out, above half the highest frequency; 0 to 1.

    0 for a picture without any power.
    """
    luma = _luma(pictures)
    power = np.abs(np.fft.fft2(luma - luma.mean(axis=(1, 2), keepdims=True))) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(size)) for size in luma.shape[1:])
    high = np.maximum(rows[:, None], columns[None]) > 0.25
    total = power.sum(axis=(1, 2))
    above = (power * high).sum(axis=(1, 2))
    return np.divide(above, total, out=np.zeros_like(total), where=total > 1e-12)


def total_variation(pictures: Pictures) -> Values:
    """Mean difference of luma between a pixel and the next, to the right and below; 0 to 2."""
    luma = _luma(pictures)
    down = np.abs(np.diff(luma, axis=1)).mean(axis=(1, 2))
    right: Values = np.abs(np.diff(luma, axis=2)).mean(axis=(1, 2))
    return right + down


def noise_residual(pictures: Pictures) -> Values:
    """Root mean square of what a median of 3 x 3 pixels takes out of luma; 0 to 1.

    Edges and flat areas pass the median, noise of single pixels does not.
    """
    luma = _luma(pictures)
    removed = luma - scipy.ndimage.median_filter(luma, size=(1, 3, 3), mode="nearest")
    return np.sqrt((removed**2).mean(axis=(1, 2)))


def flatness(pictures: Pictures) -> Values:
    """Share of pixels that equal their right and lower neighbours once saved in 8 bits; 0 to 1."""
    levels = np.round(pictures * 255)
    here = levels[:, :, :-1, :-1]
    equal = (here == levels[:, :, 1:, :-1]) & (here == levels[:, :, :-1, 1:])
    return equal.all(axis=1).mean(axis=(1, 2))


def border_variation(pictures: Pictures) -> Values:
    """Standard deviation of the border's pixels about its mean colour; 0 for a plain border."""
    height, width = pictures.shape[-2:]
    edge = max(1, min(BORDER, height // 4, width // 4))
    border = np.ones((height, width), dtype=bool)
    border[edge:-edge, edge:-edge] = False
    pixels = pictures[:, :, border]
    return np.sqrt(pixels.var(axis=2).mean(axis=1))


STATISTICS: dict[str, Callable[[Pictures], Values]] = {
    function.__name__: function
    for function in (
        *(brightness, contrast, saturation, sharpness, high_frequency),
        *(total_variation, noise_residual, flatness, border_variation),
    )
}


def image_statistics(pictures: Pictures) -> dict[str, Values]:
    """All statistics of pictures ``[n, 3, height, width]`` in [0, 1]; NaN where pixels are not
    finite."""
    pictures = np.asarray(pictures, dtype=np.float64)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(pictures).all(axis=(1, 2, 3)))
    safe = np.where(finite[:, None, None, None], pictures, 0.0)
    return {name: np.where(finite, of(safe), np.nan) for name, of in STATISTICS.items()}


def _luma(pictures: Pictures) -> NDArray[np.float64]:
    """``[n, height, width]`` by BT.601."""
    red, green, blue = pictures[:, 0], pictures[:, 1], pictures[:, 2]
    return 0.299 * red + 0.587 * green + 0.114 * blue
