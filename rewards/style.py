"""Whether a picture is in a named style, by a head on the emoji scorer."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.scorer import (
    FOLDER,
    MODEL_FILES,
    DamagedWeights,
    digest,
    load_scorer,
    require_files,
)

HEAD_FILE = "style_head.safetensors"


@dataclass(frozen=True)
class StyleHead:
    """Linear classifier on unit image embeddings."""

    styles: tuple[str, ...]
    weight: Tensor
    """``[styles, d]``"""
    bias: Tensor
    """``[styles]``"""


@functools.cache
def load_head(folder: Path, device: torch.device) -> StyleHead:
    """The style head in ``folder``: fp32 tensors ``weight`` and ``bias``, metadata ``styles``.

    Raises :class:`rewards.scorer.MissingWeights` or :class:`rewards.scorer.DamagedWeights`.
    """
    require_files(folder, [HEAD_FILE])
    path = folder / HEAD_FILE
    try:
        with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
            words = (file.metadata() or {})["styles"].split(",")
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
    except (safetensors.SafetensorError, KeyError) as error:
        raise DamagedWeights(f"cannot load the style head {path}: {error}") from error
    styles = tuple(word.strip() for word in words)
    if weight.ndim != 2 or not len(styles) == len(weight) == bias.numel():
        raise DamagedWeights(
            f"cannot load the style head {path}: {len(styles)} styles, weight "
            f"{list(weight.shape)}, bias {list(bias.shape)}"
        )
    return StyleHead(styles, weight.float(), bias.float())


@register
class Style(Reward):
    """Probability that the picture is in a style, whatever the prompt says.

    Softmax over the styles that the head knows, of a linear map of the scorer's unit image
    embedding. ``folder`` holds the scorer. Raises ``ValueError`` for a style the head does not
    know, and what :class:`rewards.clip_score.ClipScore` raises.
    """

    name = "style"
    version = "1"
    unit = "probability"
    range = (0.0, 1.0)
    differentiable = True
    source = "this project: linear style head on the emoji scorer"

    def __init__(self, style: str = "fluent", folder: Path = FOLDER):
        require_files(folder, [*MODEL_FILES, HEAD_FILE])
        styles = load_head(folder, torch.device("cpu")).styles
        if style not in styles:
            nearest = difflib.get_close_matches(style, styles, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown style {style!r}; the nearest is {nearest!r}; known: {', '.join(styles)}"
            )
        self.style = style
        self.folder = folder
        files = (digest(folder / file) for file in ("open_clip_model.safetensors", HEAD_FILE))
        self.version = f"1 ({style}, weights {' + '.join(files)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        head = load_head(self.folder, images.device)
        embedding = load_scorer(self.folder, images.device).image_embedding(images)
        logits = embedding @ head.weight.T + head.bias
        return logits.softmax(1)[:, head.styles.index(self.style)]
