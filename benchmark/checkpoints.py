"""The checkpoint of a cell that is reported, kept while training goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
    evaluation: Evaluation
    grids: dict[str, Array]
    """Of exact metrics; empty unless the model is one in closed form."""
    weights: Weights
    """What was trained, on the CPU; empty for a method that does not train."""

    def save(self, folder: Path, policy: Policy, config: CellConfig) -> None:
        """Write pictures, grids and trained weights with their card; the policy has to hold the
        weights."""
        if self.grids:
            store.save_density(folder / "density.safetensors", self.grids)
        if policy.output == "image":
            for prompt, images in enumerate(self.evaluation.images):
                for index, pixels in enumerate(to_uint8(images)):
                    save_picture(store.sample_path(folder, prompt, index), pixels)
        if self.weights:
            name = "lora" if config.model["trainable"] == "lora" else "unet"
            name = name if policy.output == "image" else "network"
            found = self.evaluation
            card = model_card.text(config, self.round, found.rewards, found.diversity)

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
            self._picked = Checkpoint(round_, evaluation, grids, weights() if weights else {})

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
