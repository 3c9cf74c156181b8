"""The head that LAION's aesthetic predictor and ImageReward share: five affine layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)
DROPOUTS = (0.2, 0.2, 0.1)
"""After the first three layers; idle here, but they number the layers of the files."""


class AffineHead(nn.Module):
    """Five affine layers with nothing between them, so that together they are one."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise((width, *WIDTHS))):
            layers.append(nn.Linear(before, after))
            layers += [nn.Dropout(rate) for rate in DROPOUTS[index : index + 1]]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``[n]`` of features ``[n, width]``."""
        return self.layers(features).squeeze(1)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, float]:
        """The direction ``[width]`` and the constant that all layers together are."""
        device = next(self.parameters()).device
        constant = self(torch.zeros(1, self.width, device=device))
        return self(torch.eye(self.width, device=device)) - constant, float(constant)
