"""The identity of an evaluation: numbers of two cells compare only if it is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark import models
from benchmark.suite import Suite

MODEL_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""Folders of a Stable Diffusion folder that its pictures depend on."""


def protocol_hash(
    suite: Suite, model: str, rewards: Mapping[str, str], encoders: Mapping[str, str]
) -> str:
    """First 16 digits of the SHA-256 of all that evaluation depends on.

    ``model`` identifies the weights (never a path, which differs between machines); ``rewards``
    and ``encoders`` map names to versions. Methods, seeds, budget and adapters are not part of it:
    they are what is compared. Nor is the batch size, which changes results by rounding only.
    """
    sampler = suite.model.model_dump(include={"sampling_steps", "guidance_scale", "eta", "dtype"})
    if suite.model.variance != "posterior":
        sampler["variance"] = suite.model.variance
    content: dict[str, Any] = {
        "model": model,
        "sampler": sampler,
        "prompts": list(suite.prompts.evaluation),
        "images_per_prompt": suite.evaluation.images_per_prompt,
        "seed": suite.evaluation.seed,
        "rewards": dict(rewards),
        "encoders": dict(encoders),
    }
    if models.output(suite.model.name) == "point":
        content["exact_points"] = suite.evaluation.exact_points
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_identity(name: str, folder: Path | None) -> str:
    """Digest of the weights and settings in a model folder; the name itself for a hub id."""
    if folder is None:
        return name
    digest = hashlib.sha256()
    if folder.is_file():
        digest.update(folder.read_bytes())
    for part in MODEL_FOLDERS:
        for path in sorted((folder / part).glob("*")):
            if path.is_file():
                digest.update(f"{part}/{path.name}\n".encode())
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
