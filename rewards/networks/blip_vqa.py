"""BLIP fine-tuned to answer questions about pictures (Li et al., arXiv 2201.12086), on
transformers' own class.

A vision transformer's tokens go into every layer of a BERT that reads the question; what it makes
of the question goes into every layer of a second one, which writes the answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.networks.bertscore import load_strictly
from rewards.networks.blip import tokenizer
from rewards.scorer import DamagedWeights

_NOT_READ = re.compile(r'[.!"()*#:;~]')
"""What BLIP's own preparation of questions takes out."""


class BlipVqaModel:
    """The network, frozen in fp32, with the tokenizer of its questions.

    ``vocabulary`` is that of BERT base uncased. The network has two words more, which start an
    answer and a question. Raises ``ValueError`` if the two do not go together.
    """

    def __init__(self, network: Any, vocabulary: Path) -> None:
        self.network = network.float().eval().requires_grad_(False)
        self.size = network.config.vision_config.image_size
        self.tokenizer = tokenizer(vocabulary)
        words = self.tokenizer.get_vocab_size()
        self.answer_start, self.question_start = words, words + 1
        if network.config.text_config.vocab_size != words + 2:
            raise ValueError(f"it knows {network.config.text_config.vocab_size} words, not {words}")
        self.yes, self.no = (self.tokenizer.token_to_id(word) for word in ("yes", "no"))
        if self.yes is None or self.no is None:
            raise ValueError(f"{vocabulary} has no words yes and no")

    def question(self, text: str) -> list[int]:
        """Tokens of "TEXT?", 35 at most."""
        encoded = self.tokenizer.encode(asked(text))
        return [self.question_start, *encoded.ids[1 : sum(encoded.attention_mask)]]

    def first_word(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Logits ``[n, words]`` of the answers' first word, of prepared pictures and texts."""
        seen = self.network.vision_model(pixel_values=pixels).last_hidden_state
        questions = [self.question(text) for text in texts]
        logits: dict[int, Tensor] = {}
        # Questions of one length at a time: releases of transformers (5.24) lose the mask that
        # would keep padding out of the answer.
        for length in {len(question) for question in questions}:
            rows = [index for index, each in enumerate(questions) if len(each) == length]
            tokens = torch.tensor([questions[row] for row in rows], device=pixels.device)
            logits |= zip(rows, self._answered(seen[rows], tokens), strict=True)
        return torch.stack([logits[row] for row in range(len(questions))])

    def _answered(self, seen: Tensor, tokens: Tensor) -> Tensor:
        read = self.network.text_encoder(
            input_ids=tokens, encoder_hidden_states=seen
        ).last_hidden_state
        answer = self.network.text_decoder(
            input_ids=torch.full_like(tokens[:, :1], self.answer_start), encoder_hidden_states=read
        )
        logits: Tensor = answer.logits[:, 0]
        return logits

    def yes_or_no(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Probability of yes where the answer is yes or no, ``[n]``."""
        logits = self.first_word(pixels, texts)
        return (logits[:, self.yes] - logits[:, self.no]).sigmoid()


def asked(text: str) -> str:
    """The question of a text: "TEXT?", as BLIP prepares it."""
    return _NOT_READ.sub("", f"{text}?").lower()


@functools.cache
def load_blip_vqa(folder: Path, vocabulary: Path, device: torch.device) -> BlipVqaModel:
    """A network in transformers' layout, loaded once a process; raises :class:`DamagedWeights`."""
    from transformers import BlipForQuestionAnswering

    try:
        network = load_strictly(BlipForQuestionAnswering, folder, whole=True)
        return BlipVqaModel(network.to(device), vocabulary)
    except Exception as error:  # whatever transformers or tokenizers make of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load BLIP VQA from {folder}: {reason}") from error
