"""How well a picture fits its prompt, by the emoji scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.scorer import FOLDER, MODEL_FILES, digest, load_scorer, require_files


@register
class ClipScore(Reward):
    """Cosine between the embeddings of picture and prompt; no prefix, no scale, no clipping.

    ``folder`` holds the scorer. Raises :class:`rewards.scorer.MissingWeights` if a file of it is
    not there, and :class:`rewards.scorer.DamagedWeights` at the first score if it cannot be loaded.
    """

    name = "clip_score"
    version = "1"
    unit = "cosine"
    range = (-1.0, 1.0)
    differentiable = True
    source = (
        "after Hessel et al., CLIPScore, arXiv 2104.08718, with this project's emoji scorer "
        "in place of CLIP"
    )
    needs_prompt = True

    def __init__(self, folder: Path = FOLDER):
        require_files(folder, MODEL_FILES)
        self.folder = folder
        self.version = f"1 (weights {digest(folder / 'open_clip_model.safetensors')})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        scorer = load_scorer(self.folder, images.device)
        return (scorer.image_embedding(images) * scorer.text_embedding(prompts)).sum(1)
