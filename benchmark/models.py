"""Models by name: the one that comes with the program, a folder, or an id of the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import diffusion
import diffusion.emoji
from benchmark.errors import UsageError, did_you_mean

NAMED = {"emoji": Path(diffusion.emoji.__file__).parent / "weights"}
"""Name to the Stable Diffusion folder that comes with the program."""
MIXTURE = "mixture"
"""The model in closed form of ``diffusion/mixture.py``; no Stable Diffusion folder."""
RANDOM = {"sd15-random": 1_066_235_307, "sdxl-random": 3_468_837_867}
"""Architectures with random weights, see ``diffusion/architectures.py``, to their parameters."""
MIXTURE_WEIGHTS = Path(diffusion.__file__).parent / "mixture.safetensors"
NEEDED = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
WEIGHTED = ("unet", "vae", "text_encoder")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def output(name: str) -> Literal["image", "point"]:
    """What a model makes."""
    return "point" if name == MIXTURE else "image"


def find_model(name: str) -> Path | None:
    """Folder of a model, checked to hold what a Stable Diffusion folder holds; of ``mixture`` the
    file of its weights.

    ``None`` for an id of the hub, whose files are looked for when a cell loads it, and for a model
    of random weights, which has no files. Raises ``UsageError`` for an unknown name and for a
    folder that lacks a file.
    """
    if name == MIXTURE:
        if not MIXTURE_WEIGHTS.is_file():
            raise UsageError(f"model {name!r} lacks a file: {MIXTURE_WEIGHTS}")
        return MIXTURE_WEIGHTS
    if name in RANDOM:
        return None
    folder = NAMED.get(name, Path(name))
    if name not in NAMED and not folder.is_dir():
        if _HUB_ID.fullmatch(name):
            return None
        hint = did_you_mean(name, [*NAMED, MIXTURE, *RANDOM])
        raise UsageError(f"model.name: unknown model {name!r}; {hint}; or a folder or a hub id")
    for file in missing_files(folder):
        raise UsageError(f"model {name!r} lacks a file: {folder / file}")
    return folder


def missing_files(folder: Path) -> list[str]:
    """Files that a Stable Diffusion folder needs and this one lacks."""
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    return missing + [f"{part}/*.safetensors" for part in WEIGHTED if not _weights(folder / part)]


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
