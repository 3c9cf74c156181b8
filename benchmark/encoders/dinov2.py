"""DINOv2 ViT-B/14 (Oquab et al., arXiv 2304.07193), learned without captions, optional."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark.encoders import Encoder, Source, hub_folder, normalised, register, resized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, CROP = 256, 224
"""As in the release: shorter side at 256, the middle 224 of it."""


def load(device: torch.device) -> Encoder:
    """The class token after the last normalisation; raises ``MissingEncoder``."""
    return load_folder(hub_folder("dinov2", "dinov2"), device)


def load_folder(folder: Path, device: torch.device) -> Encoder:
    """A DINOv2 checkpoint in transformers' layout."""
    from transformers import Dinov2Model

    with torch.random.fork_rng(devices=[]):
        network = Dinov2Model.from_pretrained(folder, use_safetensors=True)
    network = network.float().eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def encode(images: torch.Tensor) -> torch.Tensor:
        pixels = normalised(resized(images, SIZE, CROP), MEAN, STD)
        return network(pixel_values=pixels).last_hidden_state[:, 0]

    return encode


def version() -> str:
    """Revision of its repository; raises ``MissingEncoder``."""
    return hub_folder("dinov2", "dinov2").name[:12]


register("dinov2", Source(load, version))
