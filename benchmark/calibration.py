"""A calibration: which scores an untrained model has to have, and how they are measured.

One YAML file of ``benchmark/calibrations`` each, or one of the user's own. What is written by hand
stands first in it; ``stored``, the values, last, where ``calibrate --update`` replaces it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from benchmark import prompt_sets, yaml_file
from benchmark.errors import UsageError
from benchmark.model_settings import ModelSettings, Settings
from benchmark.protocol import digest
from benchmark.validation import Origins, validate

SAMPLER = {"sampling_steps", "guidance_scale", "dtype"}
"""Settings of the model that stored values depend on, beside its weights."""
Eta = Annotated[float, Field(ge=0, le=1)]
Kind = Literal["reward", "diversity"]


class StoredValue(Settings):
    """One score under one sampler."""

    eta: Eta
    value: float
    """Mean over prompts."""
    standard_error: float | None = Field(default=None, ge=0)
    """Over prompts, where it is known."""
    by_prompt: tuple[float, ...] = ()
    """The values of the prompts in order, where they are known."""


class StoredScore(Settings):
    """One score."""

    version: str = ""
    """Of the reward or encoder that measured it; with another one it is not compared. Empty for
    what others measured."""
    values: tuple[StoredValue, ...] = Field(min_length=1)


class Stored(Settings):
    """The values, and what is behind them."""

    source: str
    """Where they stand, or how they were measured."""
    prompts: int | None = Field(default=None, ge=2)
    """Number of prompts behind each, where it is known."""
    images_per_prompt: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    """Of the noise, if this program measured them; checks take another."""
    conditions: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """Hash of prompts and sampler, likewise."""
    model: str = ""
    """Digest of the weights, likewise."""
    rewards: dict[str, StoredScore] = {}
    diversity: dict[str, StoredScore] = {}


class Calibration(Settings):
    """A calibration file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    """One line for ``list calibrations``."""
    origin: Literal["measured", "published"]
    """Whose the stored values are: measured by this program, so that ``--update`` measures them
    anew, or published by others."""
    model: ModelSettings
    prompts: str
    """A prompt set or part of one, or a .txt file."""
    images_per_prompt: int = Field(ge=2)
    """Of a check."""
    seed: int = Field(default=0, ge=0)
    """Of a check."""
    batch_size: int = Field(default=48, ge=1)
    etas: tuple[Eta, ...] = Field(default=(0.0, 1.0), min_length=1)
    """Samplers: the noise of DDIM."""
    agrees_within: float = Field(default=2.0, gt=0)
    """Standard errors of the difference up to which a score agrees."""
    differs_above: float = Field(default=3.0, gt=0)
    """Those above which it differs; between the two it is doubtful."""
    rewards: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    """Those in whose features the diversity of a prompt's images is measured."""
    stored: Stored | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        if "eta" in self.model.model_fields_set:
            raise ValueError("model.eta is not for calibrations: they sample at each of etas")
        if self.differs_above < self.agrees_within:
            raise ValueError("differs_above has to be at least agrees_within")
        if not self.rewards and not self.encoders:
            raise ValueError("there is nothing to measure: name rewards or encoders")
        for given in (self.rewards, self.encoders, self.etas):
            if len(set(given)) < len(given):
                raise ValueError(f"an entry occurs twice: {', '.join(map(str, given))}")
        if self.stored is not None:
            self._check(self.stored.rewards, self.rewards, "rewards", self.stored)
            self._check(self.stored.diversity, self.encoders, "diversity", self.stored)
        return self

    def _check(
        self, scores: dict[str, StoredScore], named: tuple[str, ...], where: str, stored: Stored
    ) -> None:
        if set(scores) != set(named):
            odd = sorted(set(scores) ^ set(named))[0]
            raise ValueError(f"stored.{where} and what is measured differ, first in {odd!r}")
        for name, score in scores.items():
            if sorted(value.eta for value in score.values) != sorted(self.etas):
                raise ValueError(f"stored.{where}.{name} needs a value for each of etas")
            if any(len(v.by_prompt) not in (0, stored.prompts) for v in score.values):
                raise ValueError(f"stored.{where}.{name}.by_prompt needs a value for each prompt")

    def stored_value(self, kind: Kind, name: str, eta: float) -> tuple[StoredScore, StoredValue]:
        """What is stored of one score under one sampler."""
        assert self.stored is not None
        score = (self.stored.rewards if kind == "reward" else self.stored.diversity)[name]
        return score, next(value for value in score.values if value.eta == eta)

    def read_prompts(self) -> tuple[str, ...]:
        """All of its prompts; raises ``UsageError``."""
        try:
            prompts = prompt_sets.read(self.prompts)
        except ValueError as error:
            raise UsageError(f"calibration {self.name}: prompts: {error}") from error
        if len(prompts) < 2:
            raise UsageError(f"calibration {self.name}: prompts: one prompt has no standard error")
        return prompts

    def conditions(self, prompts: tuple[str, ...]) -> str:
        """Hash of prompts and sampler."""
        settings = self.model.model_dump(include=SAMPLER)
        return digest({"sampler": settings, "prompts": list(prompts)})


def read(path: Path) -> Calibration:
    """A calibration file; raises ``UsageError`` naming each wrong key."""
    values = yaml_file.read(path)
    return validate(Calibration, values, Origins(path, yaml_file.key_lines(path)))


def with_stored(text: str, stored: Stored) -> str:
    """The text of a file with its last part, ``stored``, replaced; comments before it stay."""
    head: list[str] = []
    for line in text.splitlines():
        if line.startswith("stored:"):
            break
        head.append(line)
    content = {"stored": stored.model_dump(mode="json", exclude_defaults=True)}
    written = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return "\n".join(head).rstrip() + "\n" + written


class _Dumper(yaml.SafeDumper):
    """Lists of numbers on lines of their own kind, not one number a line."""


def _sequence(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    flow = all(isinstance(value, float | int) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


_Dumper.add_representer(list, _sequence)
