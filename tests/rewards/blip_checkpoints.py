"""A tiny random network under all names of ImageReward's file, two layers a half."""

from __future__ import annotations

import math
import string
from pathlib import Path

import torch
from torch import Tensor

from rewards.image_reward_v1 import ImageRewardV1

SEEN, READ = 128, 64
"""Widths of the picture's half and the text's."""


class Tensors:
    """Random tensors of a size at which every layer matters, by name."""

    def __init__(self) -> None:
        self.source = torch.Generator().manual_seed(7)
        self.state: dict[str, Tensor] = {}

    def tensor(self, name: str, *shape: int) -> None:
        scale = 1.5 / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.2
        self.state[name] = scale * torch.randn(shape, generator=self.source)

    def layer(self, name: str, outputs: int, inputs: int) -> None:
        self.tensor(f"{name}.weight", outputs, inputs)
        self.tensor(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.tensor(f"{name}.weight", width)
        self.state[f"{name}.weight"] += 1
        self.tensor(f"{name}.bias", width)

    def vision(self, root: str) -> None:
        self.tensor(f"{root}.cls_token", 1, 1, SEEN)
        self.tensor(f"{root}.pos_embed", 1, 5, SEEN)
        self.tensor(f"{root}.patch_embed.proj.weight", SEEN, 3, 16, 16)
        self.tensor(f"{root}.patch_embed.proj.bias", SEEN)
        for index in range(2):
            block = f"{root}.blocks.{index}"
            self.norm(f"{block}.norm1", SEEN)
            self.layer(f"{block}.attn.qkv", 3 * SEEN, SEEN)
            self.layer(f"{block}.attn.proj", SEEN, SEEN)
            self.norm(f"{block}.norm2", SEEN)
            self.layer(f"{block}.mlp.fc1", 2 * SEEN, SEEN)
            self.layer(f"{block}.mlp.fc2", SEEN, 2 * SEEN)
        self.norm(f"{root}.norm", SEEN)

    def text(self, root: str, seen: int = SEEN) -> None:
        self.state[f"{root}.embeddings.position_ids"] = torch.arange(40)[None]
        self.tensor(f"{root}.embeddings.word_embeddings.weight", 30524, READ)
        self.tensor(f"{root}.embeddings.position_embeddings.weight", 40, READ)
        self.norm(f"{root}.embeddings.LayerNorm", READ)
        for index in range(2):
            block = f"{root}.encoder.layer.{index}"
            for attention, width in (("attention", READ), ("crossattention", seen)):
                self.layer(f"{block}.{attention}.self.query", READ, READ)
                self.layer(f"{block}.{attention}.self.key", READ, width)
                self.layer(f"{block}.{attention}.self.value", READ, width)
                self.layer(f"{block}.{attention}.output.dense", READ, READ)
                self.norm(f"{block}.{attention}.output.LayerNorm", READ)
            self.layer(f"{block}.intermediate.dense", 2 * READ, READ)
            self.layer(f"{block}.output.dense", READ, 2 * READ)
            self.norm(f"{block}.output.LayerNorm", READ)


def image_reward_state() -> dict[str, Tensor]:
    """Every tensor of the release, in its order."""
    tensors = Tensors()
    tensors.vision("blip.visual_encoder")
    tensors.text("blip.text_encoder")
    tensors.layer("blip.vision_proj", 16, SEEN)
    tensors.layer("blip.text_proj", 16, READ)
    widths = (READ, 1024, 128, 64, 16, 1)
    for index, place in enumerate((0, 2, 4, 6, 7)):
        tensors.layer(f"mlp.layers.{place}", widths[index + 1], widths[index])
    return tensors.state


WORDPIECES = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
WORDPIECES |= {letter: 1037 + index for index, letter in enumerate(string.ascii_lowercase)}
WORDPIECES |= {f"##{letter}": 2000 + index for index, letter in enumerate(string.ascii_lowercase)}
WORDPIECES |= {"?": 1029, "no": 2053, "yes": 2748}
WORDPIECES |= {str(digit): 3000 + digit for digit in range(10)}


def wordpieces(folder: Path) -> Path:
    """A vocabulary of BERT's size, with its special tokens and single letters."""
    rows = [f"[unused{index}]" for index in range(30522)]
    for piece, index in WORDPIECES.items():
        rows[index] = piece
    path = folder / "vocab.txt"
    path.write_text("\n".join(rows) + "\n")
    return path


def image_reward(folder: Path) -> ImageRewardV1:
    path = folder / "ImageReward.pt"
    torch.save(image_reward_state(), path)
    return ImageRewardV1(path, wordpieces(folder))
