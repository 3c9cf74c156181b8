"""A suite: everything that decides what a run does, read from YAML and checked.

Suites that come with the program are named; any other is given by the path of its file. Options
of the command line change the values before they are checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from benchmark import prompt_sets, yaml_file
from benchmark.composites import CompositeSettings
from benchmark.errors import UsageError, did_you_mean
from benchmark.model_settings import ECONOMIES, ModelSettings, Settings
from benchmark.validation import Origins, validate
from results.checkpoints import CheckpointRule

__all__ = [
    "ECONOMIES",
    "AnchorSettings",
    "Budget",
    "EvaluationSettings",
    "ModelSettings",
    "Prompts",
    "RewardAnchors",
    "Suite",
    "check",
    "find",
    "names",
    "parse_seeds",
    "read",
]
FOLDER = Path(__file__).parent / "suites"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


EncoderName = Literal[
    "scorer",
    "efficientnet-lite0",
    "clip",
    "dinov2",
    "dreamsim",
    "dreamsim-ensemble",
    "lpips",
    "direction",
]


class Prompts(Settings):
    """Prompts of a protocol: each a list, a prompt set or part of one, or a .txt file."""

    train: tuple[str, ...] = Field(min_length=1)
    """Prompts that methods sample while they train."""
    validation: tuple[str, ...] = ()
    """Prompts that checkpoints are picked on; their subjects are in neither of the others."""
    test: tuple[str, ...] = Field(min_length=1)
    """Held-out prompts of all reported numbers; none may ask for a subject and style that training
    asks for together."""

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "evaluation" in value:
            raise ValueError("the key 'evaluation' is called 'test' now")
        return value

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _named_set(cls, value: Any) -> Any:
        return prompt_sets.read(value) if isinstance(value, str) else value

    @field_validator("train", "validation", "test")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in value):
            raise ValueError("a prompt is empty")
        if twice := prompt_sets.duplicates(value):
            raise ValueError(f"the prompt {twice[0]!r} occurs twice")
        return value

    @model_validator(mode="after")
    def _held_out(self) -> Prompts:
        if overlap := prompt_sets.shared(self.train, self.test):
            raise ValueError(
                f"train and test overlap: {len(overlap)} test prompts ask for a subject and style "
                f"that training asks for, first {overlap[0]!r}"
            )
        for name in ("train", "test"):
            if overlap := prompt_sets.shared_subjects(getattr(self, name), self.validation):
                raise ValueError(
                    f"{name} and validation overlap: {len(overlap)} validation prompts ask for a "
                    f"subject of {name}, first {overlap[0]!r}"
                )
        return self


class Budget(Settings):
    """What each cell may spend in training."""

    images: int = Field(default=256, ge=1)
    """Training images, each sampled to the end."""


class EvaluationSettings(Settings):
    """How every cell is evaluated."""

    images_per_prompt: int = Field(default=4, ge=2)
    """Images of each test prompt; at least 2, since diversity is a distance of pairs."""
    times: int = Field(default=4, ge=1)
    """Evaluations, evenly over training, the last one at its end."""
    checkpoint: CheckpointRule = "last"
    """Which of them gives the reported numbers and the saved weights: the ``last``, or the
    ``best-on-validation`` in the reward trained on, the earlier one of equals."""
    validation_images_per_prompt: int = Field(default=2, ge=1)
    """Images of each validation prompt at each evaluation; none where the last is taken."""
    etas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Noise of the DDIM sampler in evaluation: the first is that of all reported numbers, the
    others are drawn for the picked checkpoint alone. By default ``model.eta``, then 0."""
    batch_size: int = Field(default=48, ge=1)
    """Most images sampled at once; changes results by rounding only."""
    seed: int = Field(default=0, ge=0)
    """Decides the noise that evaluation images start from, the same for every cell."""
    path_kl_images: int = Field(default=1, ge=0)
    """Images of each test prompt whose divergence from the base model is measured, none of
    ``mixture``; each costs an evaluation as much again as sampling it."""
    encoders: tuple[EncoderName, ...] = Field(
        default=("scorer", "efficientnet-lite0"), min_length=1
    )
    """Networks in whose features diversity and drift are measured; ``direction``, the points
    themselves, for ``mixture`` alone."""
    rewards: tuple[str, ...] = ()
    """Optional rewards, whose weights do not come with the program, that score every evaluation
    too; one trained on need not be named."""
    exact_points: int = Field(default=65536, ge=1000)
    """Points drawn for the exact metrics of ``mixture``."""

    @field_validator("etas")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("an eta occurs twice")
        return value


class RewardAnchors(Settings):
    """Scores of one reward on the test prompts that become 0 and 1."""

    version: str
    """Of the reward, when they were measured."""
    zero: float
    """That of the untrained model."""
    one: float
    """That of best-of-n, or a stated figure."""

    @model_validator(mode="after")
    def _in_order(self) -> RewardAnchors:
        if self.one <= self.zero:
            raise ValueError(f"one has to be above zero, and {self.one:g} is not {self.zero:g}")
        return self


class AnchorSettings(Settings):
    """Fixed scores that rewards are normalised by, in place of those of a run's own controls."""

    conditions: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """Hash of what they were measured under (``benchmark/protocol.py``); under any other
    conditions they are not used, and tables say so."""
    source: str = ""
    """How they were measured, in one line."""
    rewards: dict[str, RewardAnchors] = {}
    """By reward; others are normalised by the run's own controls."""


class Suite(Settings):
    """A benchmark: model, prompts, rewards, methods, seeds, budget and evaluation."""

    name: str = Field(pattern=_NAME)
    """Names the run folder."""
    version: int = Field(default=1, ge=1)
    """To be raised whenever the suite changes what it measures."""
    description: str = ""
    """One line for ``list suites``."""
    model: ModelSettings = ModelSettings()
    prompts: Prompts
    rewards: tuple[str, ...] = Field(min_length=1)
    """Rewards that are trained on; every evaluation is scored by all that can judge its prompts."""
    composites: dict[Annotated[str, Field(pattern=_NAME)], CompositeSettings] = {}
    """Rewards of the suite's own, by name: ``{sum: {style: 1, clip_score: 0.5}}``, or ``{product:
    [style, clip_score]}``."""
    methods: dict[str, dict[str, Any]]
    """Method to its options; ``base`` and ``best-of-n`` are always added."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Training seeds: a list, or text such as ``0-2`` or ``0,3,5``."""
    budget: Budget = Budget()
    evaluation: EvaluationSettings = EvaluationSettings()
    anchors: AnchorSettings = AnchorSettings()
    workers: int | None = Field(default=None, ge=1)
    """Cells that run at a time; by default one for each core, at most one for each cell, and no
    more than free memory has room for."""
    threads: int | Literal["auto"] = 1
    """Threads of each cell. One, so that a seed gives the same bits whatever the cores and the
    workers: sums split among threads round differently. With ``auto``, the cores divided among
    the cells that run at a time."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Training rounds between two checkpoints that a stopped cell goes on from; by default as few
    as keep writing them below 1 % of the cell's time. One more precedes and one follows each
    evaluation."""
    time_limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Most seconds of a cell, all that it does; one that takes longer is ended, ``timed out``."""
    memory_limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Most GiB of resident memory of a cell; one that takes more is ended, ``failed``."""
    cpus_per_cell: float | None = Field(default=None, gt=0)
    """Of a Ray cluster, what is kept for each cell; by default one for each of its threads."""
    gpus_per_cell: float | None = Field(default=None, ge=0)
    """Of a Ray cluster, what is kept for each cell: a number, or a share of one, such as 0.5; by
    default one where the cluster has any and ``model.device`` is not ``cpu``."""

    @field_validator("threads", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if value == "auto" or (type(value) is int and value >= 1):
            return value
        raise ValueError("it has to be a whole number from 1 on, or auto")

    @field_validator("cpus_per_cell", "gpus_per_cell")
    @classmethod
    def _share_or_number(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != round(value):
            raise ValueError("above 1 it has to be a whole number")
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _options(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seed_range(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str | int) else value

    @model_validator(mode="after")
    def _has_what_the_rule_needs(self) -> Suite:
        if self.evaluation.checkpoint == "best-on-validation" and not self.prompts.validation:
            raise ValueError(
                "evaluation.checkpoint: best-on-validation needs prompts.validation, and there "
                "are none"
            )
        return self

    @property
    def etas(self) -> tuple[float, ...]:
        """Noise of the sampler in evaluation, that of the reported numbers first."""
        return self.evaluation.etas or tuple(dict.fromkeys([self.model.eta, 0.0]))

    @field_validator("seeds", "rewards")
    @classmethod
    def _unique(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"an entry occurs twice: {', '.join(map(str, value))}")
        if any(isinstance(entry, int) and entry < 0 for entry in value):
            raise ValueError("seeds are not negative")
        return value


def parse_seeds(text: str | int) -> list[int]:
    """Seeds of ``0-2``, ``0,3,5`` or ``0-2,7``; raises ``ValueError`` for anything else."""
    seeds: list[int] = []
    for part in str(text).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"seeds are numbers such as 0-2 or 0,3,5, not {str(text)!r}")
        if dash and int(last) < int(first):
            raise ValueError(f"the seed range {part.strip()!r} is empty")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def names() -> list[str]:
    """Names of the suites that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Path:
    """File of a suite given by name or path; raises ``UsageError`` naming the nearest."""
    if name in names():
        return FOLDER / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UsageError(f"--suite {name}: no such file")
    hint = did_you_mean(name, names())
    raise UsageError(f"--suite {name}: unknown suite {name!r}; {hint}; or the path of a .yaml file")


def read(name: str) -> tuple[dict[str, Any], Origins]:
    """Values of a suite's file before any check of their meaning, and where they stand."""
    path = find(name)
    values = yaml_file.read(path)
    return values, Origins(path, yaml_file.key_lines(path))


def check(values: dict[str, Any], origins: Origins) -> Suite:
    """The suite that ``values`` describe; raises ``UsageError`` naming each wrong key."""
    return validate(Suite, values, origins)
