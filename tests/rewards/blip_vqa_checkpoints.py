"""A tiny random network under all names of BLIP VQA's files, two layers a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rewards.blip_vqa import BlipVqa
from tests.rewards.blip_checkpoints import READ, Tensors, wordpieces

WORDS = 30524
TEXT: dict[str, Any] = {
    "model_type": "blip_text_model",
    "vocab_size": WORDS,
    "hidden_size": READ,
    "encoder_hidden_size": READ,
    "intermediate_size": 2 * READ,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "layer_norm_eps": 1e-12,
    "bos_token_id": 30522,
    "sep_token_id": 102,
    "is_decoder": True,
}
VISION: dict[str, Any] = {
    "model_type": "blip_vision_model",
    "hidden_size": READ,
    "intermediate_size": 2 * READ,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


class VqaTensors(Tensors):
    """Under transformers' names, in which the release is."""

    def vision(self, root: str) -> None:
        self.tensor(f"{root}.embeddings.class_embedding", 1, 1, READ)
        self.tensor(f"{root}.embeddings.position_embedding", 1, 5, READ)
        self.tensor(f"{root}.embeddings.patch_embedding.weight", READ, 3, 16, 16)
        self.tensor(f"{root}.embeddings.patch_embedding.bias", READ)
        for index in range(2):
            block = f"{root}.encoder.layers.{index}"
            self.norm(f"{block}.layer_norm1", READ)
            self.layer(f"{block}.self_attn.qkv", 3 * READ, READ)
            self.layer(f"{block}.self_attn.projection", READ, READ)
            self.norm(f"{block}.layer_norm2", READ)
            self.layer(f"{block}.mlp.fc1", 2 * READ, READ)
            self.layer(f"{block}.mlp.fc2", READ, 2 * READ)
        self.norm(f"{root}.post_layernorm", READ)

    def words(self, root: str) -> None:
        """The head, whose matrix is not that of the embeddings, and its bias, there once."""
        self.layer(f"{root}.transform.dense", READ, READ)
        self.norm(f"{root}.transform.LayerNorm", READ)
        self.tensor(f"{root}.decoder.weight", WORDS, READ)
        self.tensor(f"{root}.bias", WORDS)


def blip_vqa_state() -> dict[str, Tensor]:
    """Every tensor of the release."""
    tensors = VqaTensors()
    tensors.vision("vision_model")
    tensors.text("text_encoder", READ)
    tensors.text("text_decoder.bert", READ)
    tensors.words("text_decoder.cls.predictions")
    return tensors.state


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config: dict[str, Any] = {"architectures": ["BlipForQuestionAnswering"], "model_type": "blip"}
    config |= {"text_config": TEXT, "vision_config": VISION}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def blip_vqa(folder: Path) -> BlipVqa:
    return BlipVqa(write(folder / "blip-vqa", blip_vqa_state()), wordpieces(folder))
