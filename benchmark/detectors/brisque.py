"""Distortion that eyes see without a reference: noise, blur and blocks, which a reward of file
sizes or of preferences may buy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.detectors import Detector, register
from results.detections import Picture

Array = NDArray[np.float64]

WINDOW_SIGMA, WINDOW_RADIUS = 7 / 6, 3
LEAST_DEVIATION = 1 / 255
"""Added to the local standard deviation, of levels in [0, 1]."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))
"""Rows and columns to the neighbour that a pixel is multiplied with."""
SHAPES = np.arange(0.2, 10, 0.001)
FEATURES = 36


@register
class Brisque(Detector):
    """Blind quality from the statistics of natural scenes; 0 is good, 100 bad, without bounds.

    A. Mittal, A. K. Moorthy and A. C. Bovik, "No-Reference Image Quality Assessment in the Spatial
    Domain", IEEE TIP 21(12), 2012, with a regression fitted to the LIVE database of distorted
    photographs. Pictures are taken as they are, since enlarging them would be blur. Raises
    ``ValueError`` for files of the package that are not those of a regression.
    """

    name, version, title, unit = "brisque", "1", "Distortion", "points"
    sign_of = "noise, blur or blocks of compression"
    network = "BRISQUE"
    source = "BRISQUE's regression on LIVE inside the package brisque, Apache-2.0"
    packages, extra = ("brisque",), "brisque"

    def __init__(self) -> None:
        self.version = f"1 (brisque {importlib.metadata.version('brisque')})"
        self.regression = load_regression(_package_folder() / "models")

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [self.regression.predict(features(picture)) for picture in pictures]


@dataclass(frozen=True)
class Regression:
    """A support vector regression with radial kernel over scaled features."""

    lowest: Array
    highest: Array
    """Of each feature, ``[36]``; they become -1 and 1."""
    vectors: Array
    """``[n, 36]``, of scaled features."""
    weights: Array
    """``[n]``."""
    gamma: float
    offset: float

    def predict(self, found: Array) -> float:
        """The score of one picture's features ``[36]``."""
        scaled = 2 * (found - self.lowest) / (self.highest - self.lowest) - 1
        kernel = np.exp(-self.gamma * ((self.vectors - scaled) ** 2).sum(1))
        return float(self.weights @ kernel - self.offset)


def features(picture: Picture) -> Array:
    """The 36 statistics of a picture ``[H, W, 3]``, 18 of it and 18 of its half size."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float64) / 255
    return np.array(_of_one_scale(grey) + _of_one_scale(_halved(grey)))


def _of_one_scale(grey: Array) -> list[float]:
    field = _normalised(grey)
    shape, _, left, right = _fitted(field)
    found = [shape, (left + right) / 2]
    for rows, columns in SHIFTS:
        found += _fitted(field * _shifted(field, rows, columns))
    return found


def _normalised(grey: Array) -> Array:
    """Levels less the local mean, over the local standard deviation."""
    from scipy.ndimage import gaussian_filter

    def blurred(values: Array) -> Array:
        return gaussian_filter(values, WINDOW_SIGMA, mode="nearest", radius=WINDOW_RADIUS)

    mean = blurred(grey)
    deviation = np.sqrt(np.abs(blurred(grey**2) - mean**2))
    return (grey - mean) / (deviation + LEAST_DEVIATION)


def _shifted(field: Array, rows: int, columns: int) -> Array:
    """Each pixel's neighbour, 0 outside."""
    height, width = field.shape
    padded = np.pad(field, 1)
    return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


def _halved(grey: Array) -> Array:
    """Cubic convolution with a = -0.75 and without smoothing, as OpenCV has it."""
    import torch

    batch = torch.from_numpy(grey)[None, None]
    half = torch.nn.functional.interpolate(
        batch, scale_factor=0.5, mode="bicubic", recompute_scale_factor=False
    )
    return half[0, 0].numpy()


def _fitted(values: Array) -> list[float]:
    """Shape, mean and the two variances of an asymmetric generalised Gaussian, by moments.

    Zeros count in the moments and on neither side. Of nothing but zeros the shape is the least.
    """
    from scipy.special import gammaln

    left = _mean_square(values[values < 0])
    right = _mean_square(values[values > 0])
    total = left + right
    ratio = 0.0
    if total > 0:
        low, high = np.sqrt(left), np.sqrt(right)
        asymmetry = (low**3 + high**3) * (low + high) / total**2
        ratio = np.abs(values).mean() ** 2 / (values**2).mean() * asymmetry
    ratios = np.exp(2 * gammaln(2 / SHAPES) - gammaln(1 / SHAPES) - gammaln(3 / SHAPES))
    shape = SHAPES[np.abs(ratios - ratio).argmin()]
    spread = np.exp(gammaln(2 / shape) - (gammaln(1 / shape) + gammaln(3 / shape)) / 2)
    return [float(shape), float((np.sqrt(right) - np.sqrt(left)) * spread), left, right]


def _mean_square(values: Array) -> float:
    return float((values**2).mean()) if values.size else 0.0


def _package_folder() -> Path:
    """The package's folder, found without importing it: that needs OpenCV."""
    found = importlib.util.find_spec("brisque")
    if found is None or not found.submodule_search_locations:
        raise ValueError("the package brisque is not here")
    return Path(found.submodule_search_locations[0])


def load_regression(folder: Path) -> Regression:
    """The regression of ``svm.txt``, libsvm's text format, and ``normalize.pickle``.

    Raises ``ValueError`` for files of another make, ``OSError`` for files that are not there.
    """
    text, ranges = folder / "svm.txt", folder / "normalize.pickle"
    lowest, highest = _ranges(ranges)
    head, _, body = text.read_text(encoding="utf-8").partition("SV\n")
    try:
        said = dict(line.split(" ", 1) for line in head.splitlines())
        rows = [line.split() for line in body.splitlines()]
        vectors = np.array([[float(each.partition(":")[2]) for each in row[1:]] for row in rows])
        regression = Regression(
            lowest=lowest,
            highest=highest,
            vectors=vectors,
            weights=np.array([float(row[0]) for row in rows]),
            gamma=float(said["gamma"]),
            offset=float(said["rho"]),
        )
        kind = said["svm_type"], said["kernel_type"], int(said["total_sv"])
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{text} is no regression that libsvm wrote") from error
    if kind != ("epsilon_svr", "rbf", len(vectors)) or vectors.shape[1:] != (FEATURES,):
        raise ValueError(f"{text} is no regression over {FEATURES} features with radial kernel")
    return regression


def _ranges(path: Path) -> tuple[Array, Array]:
    """Lowest and highest of each feature, read from a pickle's numbers without running it."""
    try:
        steps = [(step.name, value) for step, value, _ in pickletools.genops(path.read_bytes())]
    except ValueError as error:
        raise ValueError(f"{path} is no pickle") from error
    names = [value for name, value in steps if name == "SHORT_BINUNICODE"]
    numbers = np.array([value for name, value in steps if name == "BINFLOAT"], dtype=np.float64)
    if names != ["min_", "max_"] or len(numbers) != 2 * FEATURES:
        raise ValueError(f"{path} does not have the ranges of {FEATURES} features")
    return numbers[:FEATURES], numbers[FEATURES:]
