"""A tiny random SegFormer under all names of DiffDoctor's file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDTHS, DEPTHS, HEADS, REDUCED, DECODED = (
    (8, 16, 40, 64),
    (1, 2, 1, 1),
    (1, 2, 5, 8),
    (8, 4, 2, 1),
    12,
)
SIZES: dict[str, Any] = {
    "depths": DEPTHS,
    "hidden_sizes": WIDTHS,
    "num_attention_heads": HEADS,
    "decoder_hidden_size": DECODED,
}
PATCHES, STRIDES = (7, 3, 3, 3), (4, 2, 2, 2)


class Tensors:
    """Random tensors of a size at which every layer matters, by the names of the release."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.state: dict[str, Tensor] = {}

    def tensor(self, name: str, *shape: int) -> None:
        scale = 1.5 / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.2
        self.state[name] = float(scale) * torch.randn(shape, generator=self.random)

    def layer(self, name: str, *shape: int) -> None:
        self.tensor(f"{name}.weight", *shape)
        self.tensor(f"{name}.bias", shape[0])

    def norm(self, name: str, width: int) -> None:
        self.layer(name, width)
        self.state[f"{name}.weight"] += 1

    def stage(self, index: int) -> None:
        width, seen = WIDTHS[index], (3, *WIDTHS)[index]
        root = "segformer.encoder"
        self.layer(f"{root}.patch_embeddings.{index}.proj", width, seen, *[PATCHES[index]] * 2)
        self.norm(f"{root}.patch_embeddings.{index}.layer_norm", width)
        for number in range(DEPTHS[index]):
            block = f"{root}.block.{index}.{number}"
            for norm in ("layer_norm_1", "layer_norm_2"):
                self.norm(f"{block}.{norm}", width)
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                self.layer(f"{block}.attention.{part}", width, width)
            if REDUCED[index] > 1:
                self.layer(f"{block}.attention.self.sr", width, width, *[REDUCED[index]] * 2)
                self.norm(f"{block}.attention.self.layer_norm", width)
            self.layer(f"{block}.mlp.dense1", 4 * width, width)
            self.layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            self.layer(f"{block}.mlp.dense2", width, 4 * width)
        self.norm(f"{root}.layer_norm.{index}", width)
        self.layer(f"decode_head.linear_c.{index}.proj", DECODED, width)

    def head(self) -> None:
        self.tensor("decode_head.linear_fuse.weight", DECODED, 4 * DECODED, 1, 1)
        self.norm("decode_head.batch_norm", DECODED)
        self.tensor("decode_head.batch_norm.running_mean", DECODED)
        self.state["decode_head.batch_norm.running_var"] = torch.linspace(0.5, 2, DECODED)
        self.state["decode_head.batch_norm.num_batches_tracked"] = torch.tensor(7)
        self.layer("decode_head.classifier", 1, DECODED, 1, 1)


def released() -> dict[str, Tensor]:
    tensors = Tensors()
    for index in range(4):
        tensors.stage(index)
    tensors.head()
    return tensors.state


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "checkpoints" / "ad_pytorch_model.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path
