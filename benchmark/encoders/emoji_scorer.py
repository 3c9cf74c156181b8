"""The emoji scorer's image tower, learned from captions of emoji."""

from __future__ import annotations

import torch

from benchmark.encoders import Encoder, Source, register
from rewards import scorer


def load(device: torch.device) -> Encoder:
    """Features before they are scaled to unit length."""
    return scorer.load_scorer(scorer.FOLDER, device).image_features


def version() -> str:
    """Digest of the weights."""
    scorer.require_files(scorer.FOLDER, scorer.MODEL_FILES)
    return scorer.digest(scorer.FOLDER / "open_clip_model.safetensors")


register("scorer", Source(load, version))
