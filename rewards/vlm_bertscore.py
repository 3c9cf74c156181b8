"""DDPO's alignment of prompt and picture: what a vision-language model says of the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.bertscore import BertScores, load_bertscorer
from rewards.networks.vlm import NEW_TOKENS, load_vlm

QUESTION = "Answer concisely: what is going on in this image?"
REFERENCE = "The image contains {}"
QUALITY = 80
"""Of the JPEG file that the model is shown."""
LAYER = 40
"""Of deberta-xlarge-mnli, the one that agrees best with people."""


@register
class VlmBertScore(Reward):
    """BERTScore recall of "The image contains PROMPT" in the model's answer.

    DDPO asked LLaVA v0, whose weights transformers does not read; this asks LLaVA 1.5 7B, so that
    numbers are not the paper's. ``vlm``, ``scorer`` and ``layer`` are folders, and a layer, in
    place of the released ones, ``tokens`` the most of an answer. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "vlm_bertscore"
    version = "1"
    unit = "recall"
    range = (-1.0, 1.0)
    differentiable = False
    source = "Black et al., DDPO, arXiv 2305.13301; Zhang et al., BERTScore, arXiv 1904.09675"
    needs_prompt = True
    weights = ("llava-1.5-7b", "deberta-xlarge-mnli")

    def __init__(
        self,
        vlm: Path | None = None,
        scorer: Path | None = None,
        layer: int = LAYER,
        tokens: int = NEW_TOKENS,
    ) -> None:
        self.vlm = vlm or weights.folder("llava-1.5-7b")
        self.scorer = scorer or weights.folder("deberta-xlarge-mnli")
        self.layer, self.tokens = layer, tokens
        files = [*weights.tensor_files(self.vlm), *weights.tensor_files(self.scorer)]
        self.version = f"1 ({weights.tag(*files)}, layer {layer}, {tokens} tokens)"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_vlm(self.vlm, images.device)
        answers = model.answers(as_jpeg(images), QUESTION, self.tokens)
        return self.compare(answers, prompts, images.device).recall

    def compare(
        self, answers: Sequence[str], prompts: Sequence[str], device: torch.device
    ) -> BertScores:
        """Precision, recall and F1 of answers against what prompts ask for."""
        scorer = load_bertscorer(self.scorer, self.layer, device)
        return scorer(answers, [REFERENCE.format(prompt) for prompt in prompts])


def as_jpeg(images: Tensor) -> list[Image.Image]:
    """Pictures as a JPEG file keeps them."""
    found = []
    for levels in (images * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy():
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(levels)).save(buffer, "JPEG", quality=QUALITY)
        found.append(Image.open(buffer).convert("RGB"))
    return found
