"""The identity of an evaluation: numbers of two cells compare only if it is the same.

A suite declares its protocol: prompts, images, noise, samplers, schedule, the rule that picks the
checkpoint, and the anchors that rewards are normalised by. With the versions of what measures, that
is the content below; its hash stands in every table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import models
from benchmark.suite import RewardAnchors, Suite

VERSION = 2
"""Of the procedure itself: to be raised when the program evaluates, picks or draws noise in another
way under the same settings."""

MODEL_FOLDERS = (
    "unet",
    "vae",
    "text_encoder",
    "tokenizer",
    "scheduler",
    "text_encoder_2",
    "tokenizer_2",
)
"""Folders of a Stable Diffusion folder that its pictures depend on."""


@dataclass(frozen=True)
class Protocol:
    """What two cells must have in common for their numbers to be compared."""

    suite: Suite
    model: str
    """Identifies the weights; never a path, which differs between machines."""
    rewards: Mapping[str, str]
    """Names of all that evaluations are scored by, and their versions."""
    encoders: Mapping[str, str]
    """Likewise."""

    @property
    def hash(self) -> str:
        """First 16 digits of the SHA-256 of :attr:`content`."""
        return digest(self.content)

    @property
    def content(self) -> dict[str, Any]:
        """All of it as JSON values.

        Methods, seeds, budget and adapters are not part of it: they are what is compared. Nor is
        the batch size, which changes results by rounding only.
        """
        suite = self.suite
        evaluation = suite.evaluation
        return {
            "version": VERSION,
            "conditions": self.conditions,
            "suite_version": suite.version,
            "training_eta": suite.model.eta,
            "train_prompts": list(suite.prompts.train),
            "validation_prompts": list(suite.prompts.validation),
            "validation_images_per_prompt": evaluation.validation_images_per_prompt,
            "further_etas": list(suite.etas[1:]),
            "evaluations": evaluation.times,
            "checkpoint": evaluation.checkpoint,
            "anchors": {
                name: anchor.model_dump(mode="json") for name, anchor in self.anchors.items()
            },
            "rewards": dict(self.rewards),
            "encoders": dict(self.encoders),
        }

    @property
    def conditions(self) -> dict[str, Any]:
        """What the scores of an untrained model and of best-of-n depend on, beside the reward."""
        suite = self.suite
        sampler = suite.model.model_dump(include={"sampling_steps", "guidance_scale", "dtype"})
        sampler["eta"] = suite.etas[0]
        if suite.model.variance != "posterior":
            sampler["variance"] = suite.model.variance
        found: dict[str, Any] = {
            "model": self.model,
            "sampler": sampler,
            "test_prompts": list(suite.prompts.test),
            "images_per_prompt": suite.evaluation.images_per_prompt,
            "seed": suite.evaluation.seed,
        }
        if models.output(suite.model.name) == "point":
            found["exact_points"] = suite.evaluation.exact_points
        return found

    @property
    def anchors(self) -> dict[str, RewardAnchors]:
        """The declared anchors that were measured under this protocol's conditions, by reward."""
        declared = self.suite.anchors
        if declared.conditions != digest(self.conditions):
            return {}
        return {
            name: anchor
            for name, anchor in sorted(declared.rewards.items())
            if self.rewards.get(name) == anchor.version
        }

    def anchors_unused(self) -> str:
        """Why declared anchors are not used; empty if all are, or none is declared."""
        declared = self.suite.anchors
        if not declared.rewards:
            return ""
        if declared.conditions != digest(self.conditions):
            return "the suite's anchors were measured under other conditions"
        judged = [name for name in declared.rewards if name in self.rewards]
        other = [name for name in judged if name not in self.anchors]
        if not other:
            return ""
        return f"the suite's anchors were measured with another version of {', '.join(other)}"


def digest(content: Mapping[str, Any]) -> str:
    """First 16 digits of the SHA-256 of JSON values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_identity(name: str, folder: Path | None) -> str:
    """Digest of the weights and settings in a model folder; the name itself for a hub id."""
    if folder is None:
        return name
    found = hashlib.sha256()
    if folder.is_file():
        found.update(folder.read_bytes())
    for part in MODEL_FOLDERS:
        for path in sorted((folder / part).glob("*")):
            if path.is_file():
                found.update(f"{part}/{path.name}\n".encode())
                with path.open("rb") as stream:
                    found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
