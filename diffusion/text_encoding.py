"""Prompts to what the UNet is conditioned on: one CLIP text encoder, or SDXL's two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffusion.ledger import Ledger
from diffusion.policy import Conditioning


class TextEncoding(Protocol):
    """What a latent diffusion model needs of its text encoders."""

    network: nn.Module
    """All of them."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encoded prompts, with the empty prompt."""

    def added(self, pooled: torch.Tensor | None, dtype: torch.dtype) -> dict[str, Any] | None:
        """What the UNet takes beside the states of ``[n, ...]`` samples."""


class ClipText:
    """Stable Diffusion 1: the last hidden states, padded to their full length."""

    def __init__(self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, ledger: Ledger):
        self.network, self.tokenizer, self.ledger = encoder, tokenizer, ledger

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See :class:`TextEncoding`."""
        return Conditioning(self._states(list(prompts)), self._states([""]))

    def added(self, pooled: torch.Tensor | None, dtype: torch.dtype) -> dict[str, Any] | None:
        """Nothing."""
        return None

    def _states(self, prompts: list[str]) -> torch.Tensor:
        ids = _tokens(self.tokenizer, prompts, self.network.device)
        with self.ledger.network("text_encoder"):
            return self.network(ids).last_hidden_state


class ClipTextPair:
    """SDXL: the last but one hidden states of both encoders side by side, the second one's pooled
    projection, and the size of the picture, which is asked for uncropped.

    Where ``zero_empty``, the empty prompt is all zeros, as SDXL was trained.
    """

    def __init__(
        self,
        encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
        tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
        ledger: Ledger,
        pixels: int,
        zero_empty: bool,
    ):
        self.network: nn.Module = nn.ModuleList(encoders)
        self.encoders, self.tokenizers, self.ledger = encoders, tokenizers, ledger
        self.time_ids = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]])
        self.zero_empty = zero_empty

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See :class:`TextEncoding`."""
        states, pooled = self._states(list(prompts))
        if self.zero_empty:
            return Conditioning(
                states, torch.zeros_like(states[:1]), pooled, torch.zeros_like(pooled[:1])
            )
        empty, empty_pooled = self._states([""])
        return Conditioning(states, empty, pooled, empty_pooled)

    def added(self, pooled: torch.Tensor | None, dtype: torch.dtype) -> dict[str, Any] | None:
        """Pooled states and sizes; raises ``ValueError`` where a method dropped the former."""
        if pooled is None:
            raise ValueError("this model is conditioned on pooled text states, and there are none")
        sizes = self.time_ids.to(pooled.device, dtype).expand(len(pooled), -1)
        return {"text_embeds": pooled.to(dtype), "time_ids": sizes}

    def _states(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        states, pooled = [], None
        for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True):
            ids = _tokens(tokenizer, prompts, encoder.device)
            with self.ledger.network("text_encoder"):
                output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled = getattr(output, "text_embeds", None)
        assert pooled is not None  # of the second, which projects
        return torch.cat(states, dim=-1), pooled


def _tokens(tokenizer: CLIPTokenizer, prompts: list[str], device: torch.device) -> torch.Tensor:
    tokens = tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return tokens.input_ids.to(device)
