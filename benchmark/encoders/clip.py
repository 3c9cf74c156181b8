"""CLIP ViT-L/14's image tower (Radford et al., arXiv 2103.00020), optional."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark.encoders import Encoder, Source, hub_folder, normalised, register, resized

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def load(device: torch.device) -> Encoder:
    """Projected image embeddings; raises ``MissingEncoder``."""
    return load_folder(hub_folder("clip", "clip"), device)


def load_folder(folder: Path, device: torch.device) -> Encoder:
    """The image tower of a CLIP checkpoint in transformers' layout."""
    from transformers import CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        network = CLIPVisionModelWithProjection.from_pretrained(folder, use_safetensors=True)
    network = network.float().eval().requires_grad_(False).to(device)
    size = network.config.image_size

    @torch.no_grad()
    def encode(images: torch.Tensor) -> torch.Tensor:
        pixels = normalised(resized(images, size, size), MEAN, STD)
        return network(pixel_values=pixels).image_embeds

    return encode


def version() -> str:
    """Revision of its repository; raises ``MissingEncoder``."""
    return hub_folder("clip", "clip").name[:12]


register("clip", Source(load, version))
