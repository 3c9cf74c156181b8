"""Faces of people: preference models favour portraits, whatever the prompt asks for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmark.detectors import Detector, register
from results.detections import Picture

SIDE = 512
"""Pixels that the longer side is brought to; a face has to be 80 wide there."""


@register
class Faces(Detector):
    """Whether a frontal face is found by histograms of oriented gradients."""

    name, version, title = "faces", "1", "Faces"
    sign_of = "portraits in place of what was asked for"
    network = "dlib HOG"
    source = "dlib's frontal face detector, weights inside the library, Boost licence"
    packages, extra = ("dlib",), "faces"

    def __init__(self) -> None:
        import dlib

        # The module is that of dlib itself, or of dlib-bin, the same compiled before.
        name = next(n for n in ("dlib-bin", "dlib") if _is_installed(n))
        self.version = f"1 (dlib {importlib.metadata.version(name)})"
        self.detect = dlib.get_frontal_face_detector()

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [float(len(self.detect(_resized(picture), 0)) > 0) for picture in pictures]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _resized(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized))
