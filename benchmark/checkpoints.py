"""The checkpoint of a cell that is reported, kept while training goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmark import model_card
from benchmark.evaluation import Evaluation, Values
from diffusion.policy import Policy
from results import store
from results.checkpoints import CheckpointRule, pick
from results.density import Array
from results.records import CellConfig
from rewards.interface import to_uint8

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """One evaluation and what gave it."""

    round: int
    pictures: Tensor | None
    """uint8 ``[prompts, images, 3, H, W]``, on the CPU; None for points."""
    grids: dict[str, Array]
    """Of exact metrics; empty unless the model is one in closed form."""
    weights: Weights
    """What was trained, on the CPU; empty for a method that does not train."""
    rewards: dict[str, Values]
    """Of the evaluation, by reward."""
    diversity: dict[str, list[float]]
    """Of the evaluation, by encoder."""

    def save(self, folder: Path, policy: Policy, config: CellConfig) -> None:
        """Write pictures, grids and trained weights with their card; the policy has to hold the
        weights."""
        if self.grids:
            store.save_density(folder / "density.safetensors", self.grids)
        if self.pictures is not None:
            for prompt, images in enumerate(self.pictures):
                for index, pixels in enumerate(images):
                    save_picture(store.sample_path(folder, prompt, index), pixels)
        if self.weights:
            name = "lora" if config.model["trainable"] == "lora" else "unet"
            name = name if policy.output == "image" else "network"
            card = model_card.text(config, self.round, self.rewards, self.diversity)

            def save(part: Path) -> None:
                policy.save_weights(part)
                if policy.output == "image":
                    store.write_bytes(part / "README.md", card.encode())

            save_folder(folder / name, save)


@dataclass
class Checkpoints:
    """All evaluations so far, of which one is kept."""

    rule: CheckpointRule
    _validation: list[Values] = field(default_factory=list)
    _picked: Checkpoint | None = None

    def add(
        self,
        round_: int,
        evaluation: Evaluation,
        grids: dict[str, Array],
        validation: Values,
        weights: Callable[[], Weights] | None,
    ) -> None:
        """Take note of an evaluation; it is kept, and ``weights`` asked for, if it is picked."""
        self._validation.append(validation)
        if pick(self.rule, self._validation) == len(self._validation) - 1:
            images = evaluation.images
            pictures = to_uint8(images) if images.ndim == 5 else None  # points are not drawn
            trained = weights() if weights else {}
            found = (evaluation.rewards, evaluation.diversity)
            self._picked = Checkpoint(round_, pictures, grids, trained, *found)

    def __len__(self) -> int:
        """Evaluations so far."""
        return len(self._validation)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        picked = None
        if self._picked:
            grids = {name: torch.from_numpy(grid) for name, grid in self._picked.grids.items()}
            picked = {**vars(self._picked), "grids": grids}
        return {"validation": self._validation, "picked": picked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it where :meth:`state_dict` was taken."""
        self._validation = list(state["validation"])
        if state["picked"]:
            grids = {name: grid.numpy() for name, grid in state["picked"]["grids"].items()}
            self._picked = Checkpoint(**{**state["picked"], "grids": grids})

    @property
    def picked(self) -> Checkpoint:
        """That which the rule picks of those so far; raises ``LookupError`` if there is none."""
        if self._picked is None:
            raise LookupError("nothing was evaluated yet")
        return self._picked


def save_folder(folder: Path, save: Callable[[Path], None]) -> None:
    """Have ``save`` fill a folder that is there whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    save(part)
    part.replace(folder)


def save_picture(path: Path, pixels: Tensor) -> None:
    """Write uint8 ``[3, H, W]`` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="png")
    store.write_bytes(path, buffer.getvalue())
