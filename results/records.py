"""What a run leaves behind, as typed records.

A run is a folder::

    run.json                        RunRecord
    cells/<cell id>/config.json     CellConfig
                    environment.json Environment
                    metrics.jsonl    one RoundRecord a line
                    evaluations.jsonl one EvaluationRecord a line
                    samplers.jsonl   one SamplerRecord a line, of the picked checkpoint
                    samples/<prompt index>-<image index>.png
                    features/<round>.safetensors   encoder name -> [prompts, images, width]
                    measures/<metric>.json   MeasureRecord
                    lora/pytorch_lora_weights.safetensors
                    density.safetensors      only of a model in closed form: cell probabilities
                    checkpoints/     what a stopped cell goes on from, until it is done
                    log.txt
                    status.json      StatusRecord, written last
    report.html
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from results.checkpoints import CheckpointRule
from results.record_parts import Counts, DensityRecord, Record
from results.states import State

SCHEMA_VERSION = 4
"""Version of the files of a run folder."""

READABLE_VERSIONS = (1, 2, 3, 4)
"""Versions that are read; any other is refused. In version 1 the last evaluation was always the
reported one, nothing was validated, one sampler was used, and no anchors were declared. Up to
version 2 cells had no key, and only ``run.json``, configs and measures named their version. Up to
version 3 evaluations had no peaks of memory."""
VERSIONLESS = {
    "Environment",
    "RoundRecord",
    "EvaluationRecord",
    "SamplerRecord",
    "StatusRecord",
}
"""Records that did not name their version up to 2; they are read as of 2 where they do not."""


class CellConfig(Record):
    """Everything that decides a cell's numbers."""

    schema_version: int = SCHEMA_VERSION
    cell_id: str
    """``<method>--<reward>--s<seed>``; the reward of ``base`` is ``none``."""
    method: str
    reward: str
    seed: int
    suite: str
    model: dict[str, Any]
    """Name or path, sampling steps, guidance_scale, eta, dtype, LoRA rank, trainable weights."""
    method_config: dict[str, Any]
    """Every option of the method, defaults resolved."""
    budget_images: int
    train_prompts: list[str]
    evaluation_prompts: list[str]
    """Held-out test prompts."""
    validation_prompts: list[str] = Field(default_factory=list)
    """Prompts that the checkpoint is picked on; empty where the last one is taken."""
    images_per_prompt: int
    validation_images_per_prompt: int = 0
    evaluations: int
    """How many evaluations, evenly over training; the untrained model is not among them."""
    checkpoint: CheckpointRule = "last"
    """Rule that picks the evaluation that is reported."""
    etas: list[float] = Field(default_factory=list)
    """Noise of the sampler in evaluation, that of the reported numbers first; none recorded in
    version 1, which evaluated with the model's own."""
    rewards: list[str]
    """All rewards each evaluation is scored by."""
    composites: dict[str, Any] = Field(default_factory=dict)
    """Those among them that the suite declares, and of what they are made."""
    protocol: str
    """Hash of what evaluation depends on: cells with different hashes are never compared."""
    weights: str = ""
    """Digest of the model's weights and settings, which is the same wherever they lie."""
    source: str = ""
    """Hash of the code that the numbers come from, see ``benchmark/fingerprint.py``."""


class Environment(Record):
    """Where a cell ran."""

    schema_version: int = SCHEMA_VERSION
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    python: str
    platform: str
    cpu: str
    cpu_threads: int
    gpu: str | None
    command: str


class RoundRecord(Record):
    """One training round."""

    schema_version: int = SCHEMA_VERSION
    round: int
    images: int
    counts: Counts
    seconds: dict[str, float]
    """Training seconds by phase so far, evaluation not among them."""
    metrics: dict[str, float]
    """What the method reports: ``reward_mean``, ``reward_std``, ``loss`` and its own."""


class EvaluationRecord(Record):
    """One evaluation on the held-out prompts, from the same noise for every method."""

    schema_version: int = SCHEMA_VERSION
    round: int
    images: int
    """Training images so far."""
    counts: Counts
    training_seconds: float
    joules: float | None = None
    """Energy of the GPU in training so far; None where it has no counter of it."""
    peak_memory_bytes: int | None = None
    """Most resident memory of the process in training rounds so far, evaluations left out where
    the system tells them apart; None before any."""
    peak_gpu_allocated_bytes: int | None = None
    """Most GPU memory that tensors took in training rounds so far; None without a GPU."""
    peak_gpu_reserved_bytes: int | None = None
    """Most GPU memory that was reserved for them; None without a GPU."""
    rewards: dict[str, list[list[float]]]
    """Reward name to values ``[prompts][images]``."""
    diversity: dict[str, list[float]]
    """Encoder name to mean pairwise cosine distance of each prompt's images, in [0, 2]."""
    bad_images: dict[str, int]
    """Images among those evaluated that are ``non_finite``, ``black`` (as safety filters make
    them) or ``constant``: one other colour all over. No image is in two kinds. Of points the
    first alone."""
    sampling_images_per_second: float
    image_statistics: dict[str, list[list[float]]] = Field(default_factory=dict)
    """Name in ``results.image_statistics`` to values ``[prompts][images]``; empty for points."""
    path_kl: list[list[float]] = Field(default_factory=list)
    """KL divergence from the base model along each of the first images' sampling trajectories,
    ``[prompts][images]`` in nats, sum over steps and latent dimensions; empty if not measured."""
    augmented: dict[str, dict[str, list[list[float]]]] = Field(default_factory=dict)
    """Name of the reward trained on, for ``base`` of each, to name of a small augmentation to the
    values after it, ``[prompts][images]``; empty where it was not measured, and for points."""
    validation: list[list[float]] = Field(default_factory=list)
    """The reward trained on by ``[prompts][images]`` of the validation prompts, by which the
    checkpoint is picked; empty if it was not measured."""
    density: DensityRecord | None = None
    """Exact metrics, where the model is one in closed form."""


class SamplerRecord(Record):
    """The picked checkpoint on the test prompts with another noise of the sampler, from the same
    initial noise."""

    schema_version: int = SCHEMA_VERSION
    eta: float
    round: int
    """Of the picked checkpoint."""
    rewards: dict[str, list[list[float]]]
    """As in the evaluation, and so are the next two."""
    diversity: dict[str, list[float]]
    bad_images: dict[str, int]
    sampling_images_per_second: float


class MeasuredValue(Record):
    """A metric of one evaluation in one encoder's features, or what a detector found."""

    round: int
    """Of the evaluation, as in its record."""
    encoder: str
    """Of a detector, its network."""
    value: float | None
    """None where the metric refused; NaN where features are not finite."""
    refused: str = ""
    """Why there is no value."""
    conditions: dict[str, float] = Field(default_factory=dict)
    """Values under different conditions do not compare."""
    details: dict[str, float] = Field(default_factory=dict)
    per_prompt: list[float] = Field(default_factory=list)


class MeasureRecord(Record):
    """A metric of all evaluations of a cell."""

    schema_version: int = SCHEMA_VERSION
    metric: str
    version: str
    title: str
    unit: str
    direction: Literal["higher", "lower", "neither"]
    needs_base: bool
    values: list[MeasuredValue]
    sign_of: str = ""
    """What a rise against base is a sign of, for what a detector found in the pictures."""


class StatusRecord(Record):
    """How a cell stands; its presence with state ``done`` makes the cell complete."""

    schema_version: int = SCHEMA_VERSION
    state: State
    key: str = ""
    """Hash of all that decides the cell's numbers, see ``results/reproduction.py``."""
    source: str = ""
    """As in the config: beside the key, so that one small file tells whether a cell is stale."""
    reason: str = ""
    """Why it failed (last line of the error) or does not apply."""
    traceback: str = ""
    seconds: float = 0.0
    """Wall-clock seconds of the whole cell."""
    seconds_by_phase: dict[str, float] = Field(default_factory=dict)
    """Disjoint phases that sum to ``seconds``, evaluation and setup included."""
    training_seconds_by_phase: dict[str, float] = Field(default_factory=dict)
    """Those of training alone."""
    network_seconds: dict[str, float] | None = None
    """Seconds inside each network in training; None where they were not measured."""
    joules: float | None = None
    """Energy of the GPU in training; None where it has no counter of it."""
    peak_memory_bytes: int = 0
    """Most resident memory of the process."""
    peak_gpu_allocated_bytes: int | None = None
    """Most GPU memory that tensors took; None without a GPU."""
    peak_gpu_reserved_bytes: int | None = None
    """Most GPU memory that was reserved for them; None without a GPU."""
    counts: Counts = Counts()
    resumed_after: list[int] = Field(default_factory=list)
    """Rounds after which the cell went on from a checkpoint, one for each time it was stopped; 0
    for a method without training."""
    notes: list[str] = Field(default_factory=list)
    """What went wrong without harm to the results, such as a damaged checkpoint; a line each."""


class RewardInfo(Record):
    """What a report says about a reward."""

    version: str
    unit: str
    range: tuple[float | None, float | None]
    differentiable: bool
    source: str
    needs_prompt: bool = False


class MethodInfo(Record):
    """What a report says about a method."""

    title: str
    paper: str
    trains: bool


class AnchorRecord(Record):
    """Scores of a reward that become 0 and 1, declared in the suite."""

    zero: float
    one: float
    version: str
    """Of the reward, when they were measured."""


class RunRecord(Record):
    """A run: what was asked for."""

    schema_version: int = SCHEMA_VERSION
    suite: str
    suite_config: dict[str, Any]
    protocol: str
    """Hash of ``protocol_content``."""
    protocol_content: dict[str, Any] = Field(default_factory=dict)
    """All that two cells must have in common to be compared; empty in version 1."""
    anchors: dict[str, AnchorRecord] = Field(default_factory=dict)
    """By reward; others are normalised by the run's own controls."""
    anchors_note: str = ""
    """How they were measured, or why those of the suite are not used."""
    command: str
    methods: dict[str, MethodInfo]
    rewards: dict[str, RewardInfo]
    """Those trained on, also where the model has no use for one, then every other reward that
    evaluations are scored by."""
    unscored: dict[str, str] = Field(default_factory=dict)
    """Rewards of what the model makes that evaluations are not scored by, each with the reason."""
    seeds: list[int]
    cells: list[str]
    """Cell ids in matrix order, those that do not apply included."""
    sources: dict[str, list[str]] = Field(default_factory=dict)
    """By method: the modules that its cells' numbers come from, with all that these import."""
