"""BERTScore (Zhang et al., arXiv 1904.09675): how much of one text another says, token by token."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.scorer import DamagedWeights


@dataclass(frozen=True)
class BertScores:
    """``[n]`` each, no rescaling by a baseline."""

    precision: Tensor
    recall: Tensor
    f1: Tensor


class BertScorer:
    """Scores of candidates against references by the hidden states after ``layer`` layers."""

    def __init__(self, network: Any, tokenizer: Any, layer: int, device: torch.device) -> None:
        self.network = network.float().eval().requires_grad_(False).to(device)
        self.tokenizer, self.layer, self.device = tokenizer, layer, device

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> BertScores:
        """Each candidate against its reference; zeros for a candidate without a word."""
        pairs = [self._pair(*each) for each in zip(candidates, references, strict=True)]
        return BertScores(*(torch.stack(column) for column in zip(*pairs, strict=True)))

    @torch.no_grad()
    def _pair(self, candidate: str, reference: str) -> tuple[Tensor, Tensor, Tensor]:
        said, said_counts = self._tokens(candidate)
        asked, asked_counts = self._tokens(reference)
        if not said_counts.any() or not asked_counts.any():
            return (said.new_zeros(()),) * 3
        # The tokens that frame a text are not averaged over, but others may be matched by them.
        similar = said @ asked.T
        precision = similar.amax(1)[said_counts].mean()
        recall = similar.amax(0)[asked_counts].mean()
        return precision, recall, 2 * precision * recall / (precision + recall)

    def _tokens(self, text: str) -> tuple[Tensor, Tensor]:
        """Unit vectors ``[tokens, width]``, and which of them are words."""
        encoded = self.tokenizer(
            text.strip(), truncation=True, max_length=512, return_special_tokens_mask=True
        )
        ids = torch.tensor([encoded["input_ids"]], device=self.device)
        states = self.network(input_ids=ids, output_hidden_states=True).hidden_states
        words = torch.tensor(encoded["special_tokens_mask"], device=self.device) == 0
        return F.normalize(states[self.layer][0], dim=1), words


@functools.cache
def load_bertscorer(folder: Path, layer: int, device: torch.device) -> BertScorer:
    """A network in transformers' layout, loaded once a process; raises :class:`DamagedWeights`."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = load_strictly(AutoModel, folder)
        if network.config.num_hidden_layers < layer:
            raise ValueError(f"it has {network.config.num_hidden_layers} layers, not {layer}")
    except Exception as error:  # whatever transformers makes of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load a network from {folder}: {reason}") from error
    return BertScorer(network, tokenizer, layer, device)


def load_strictly(kind: Any, folder: Path, whole: bool = False) -> Any:
    """A model whose every weight is in the folder; ``ValueError`` for one that is not.

    What the folder has beyond, such as the head of another task, is left, or with ``whole`` an
    error too; counts of positions, which older files have, are no weights.
    """
    with torch.random.fork_rng(devices=[]):
        network, told = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    if absent := sorted(told["missing_keys"]):
        raise ValueError(f"{len(absent)} weights are not in its files, first {absent[0]}")
    if wrong := list(told["mismatched_keys"]):
        raise ValueError(f"{len(wrong)} weights have another shape, first {wrong[0]}")
    beyond = sorted(name for name in told["unexpected_keys"] if not name.endswith("position_ids"))
    if whole and beyond:
        raise ValueError(f"{len(beyond)} weights are not the network's, first {beyond[0]}")
    return network
