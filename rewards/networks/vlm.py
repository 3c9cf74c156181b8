"""A vision-language model on this machine that answers a question about a picture."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rewards.networks.bertscore import load_strictly
from rewards.scorer import DamagedWeights

NEW_TOKENS = 64
"""Most of an answer."""


class VisionLanguageModel:
    """Greedy answers, the same for the same picture and question; fp32, frozen."""

    def __init__(self, network: Any, processor: Any, device: torch.device) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.processor, self.device = processor, device

    @torch.no_grad()
    def answers(
        self, pictures: Sequence[Image.Image], question: str, tokens: int = NEW_TOKENS
    ) -> list[str]:
        """One of at most so many tokens to each picture, without white space around it."""
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True
        )
        found = []
        # One at a time: in a batch, rounding can turn a word of the answer into another.
        for picture in pictures:
            inputs = self.processor(images=picture, text=prompt, return_tensors="pt")
            inputs = inputs.to(self.device)
            told = self.network.generate(**inputs, do_sample=False, max_new_tokens=tokens)
            answer = told[0, inputs["input_ids"].shape[1] :]
            found.append(self.processor.decode(answer, skip_special_tokens=True).strip())
        return found


@functools.cache
def load_vlm(folder: Path, device: torch.device) -> VisionLanguageModel:
    """A model in transformers' layout, loaded once a process; raises :class:`DamagedWeights`."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        network = load_strictly(AutoModelForImageTextToText, folder)
    except Exception as error:  # whatever transformers makes of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load a network from {folder}: {reason}") from error
    return VisionLanguageModel(network, processor, device)
