"""ImageReward's network (Xu et al., arXiv 2304.05977) on transformers' own BLIP.

A vision transformer's tokens go into every layer of a BERT by cross-attention; a head reads the
text's first token. The release's file has the names of its own copy of BLIP; renamed, it is
loaded strictly. Sizes are read off the tensors; heads are 64 wide.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.networks.clip import read_state
from rewards.networks.head import AffineHead
from rewards.scorer import DamagedWeights

HEAD_WIDTH = 64
TOKENS = 35
"""Of a prompt, start and end among them; more are cut."""

_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Projections that BLIP was trained with, and counts that are no weights."""
_RENAMED = (
    ("blip.visual_encoder.cls_token", "vision.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj.", "vision.embeddings.patch_embedding."),
    ("blip.visual_encoder.norm.", "vision.post_layernorm."),
    ("blip.visual_encoder.blocks.", "vision.encoder.layers."),
    ("blip.text_encoder.", "text."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    ("mlp.layers.", "head.layers."),
)


class ImageRewardNetwork(nn.Module):
    """Raw scores of prepared pictures and tokens of prompts, not yet standardised."""

    def __init__(self, vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        # The release's layer norms; transformers' default is ten times as much.
        self.vision = BlipVisionModel(BlipVisionConfig(**vision, layer_norm_eps=1e-6))
        # A decoder only so that it is built with cross-attention; it attends both ways.
        config = BlipTextConfig(
            **text,
            encoder_hidden_size=vision["hidden_size"],
            layer_norm_eps=1e-12,
            is_decoder=True,
        )
        self.text = BlipTextModel(config, add_pooling_layer=False)
        self.head = AffineHead(text["hidden_size"])

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``[n]`` of pictures ``[n, 3, size, size]`` and tokens with their mask ``[n, length]``."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], device=seen.device),
            is_decoder=False,
        ).last_hidden_state
        return self.head(read[:, 0])


class ImageRewardModel:
    """The network, frozen in fp32, with its tokenizer."""

    def __init__(self, network: ImageRewardNetwork, size: int, vocabulary: Path) -> None:
        self.network = network.float().eval().requires_grad_(False)
        self.size = size
        self.tokenizer = tokenizer(vocabulary)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raw scores ``[n]`` of prepared pictures and their prompts."""
        encoded = self.tokenizer.encode_batch(list(prompts))
        tokens = torch.tensor([each.ids for each in encoded], device=pixels.device)
        mask = torch.tensor([each.attention_mask for each in encoded], device=pixels.device)
        return self.network(pixels, tokens, mask)


def tokenizer(vocabulary: Path) -> Any:
    """BERT's uncased tokenizer, 35 tokens whatever the text."""
    from tokenizers import BertWordPieceTokenizer

    found = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    found.enable_truncation(TOKENS)
    found.enable_padding(length=TOKENS)
    return found


@functools.cache
def load_image_reward(file: Path, vocabulary: Path, device: torch.device) -> ImageRewardModel:
    """The network in a file, loaded once a process; raises :class:`DamagedWeights`."""
    try:
        state = renamed(read_state(file))
        vision, text = sizes(state)
        with torch.random.fork_rng(devices=[]):
            network = ImageRewardNetwork(vision, text)
        network.load_state_dict(state)
        return ImageRewardModel(network.to(device), vision["image_size"], vocabulary)
    except Exception as error:  # whatever torch, transformers or tokenizers make of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load ImageReward from {file}: {reason}") from error


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's tensors under the names of :class:`ImageRewardNetwork`."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(_UNUSED):
            continue
        new = name
        for theirs, ours in _RENAMED:
            new = new.replace(theirs, ours)
        found[new] = value
    return found


def sizes(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configurations of both halves, from the shapes of renamed tensors; ``KeyError`` for other
    networks' tensors."""
    embedding = state["vision.embeddings.patch_embedding.weight"]
    positions = state["vision.embeddings.position_embedding"].shape[1] - 1
    width, patch = embedding.shape[0], embedding.shape[-1]
    vision = {
        "hidden_size": width,
        "intermediate_size": len(state["vision.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _layers(state, "vision.encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch,
        "image_size": patch * round(positions**0.5),
    }
    words, width = state["text.embeddings.word_embeddings.weight"].shape
    text = {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": len(state["text.encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": _layers(state, "text.encoder.layer."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": len(state["text.embeddings.position_embeddings.weight"]),
    }
    return vision, text


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)
