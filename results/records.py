"""What a run leaves behind, as typed records.

A run is a folder::

    run.json                        RunRecord
    cells/<cell id>/config.json     CellConfig
                    environment.json Environment
                    metrics.jsonl    one RoundRecord a line
                    evaluations.jsonl one EvaluationRecord a line
                    samples/<prompt index>-<image index>.png
                    embeddings.safetensors   encoder name -> [prompts, images, width]
                    lora/pytorch_lora_weights.safetensors
                    log.txt
                    status.json      StatusRecord, written last
    report.html
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
"""Version of the files of a run folder; a reader refuses any other."""

State = Literal["pending", "running", "done", "failed", "not_applicable"]


class Record(BaseModel):
    """Base of all records: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Counts(Record):
    """Work done in training, counted in samples (one image through one network once)."""

    unet_forward: int = 0
    unet_backward: int = 0
    vae_encode: int = 0
    vae_decode: int = 0
    reward_calls: int = 0
    reward_gradient_calls: int = 0
    images: int = 0
    """Images sampled in training: trajectories run to the end."""
    optimizer_steps: int = 0


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
    images_per_prompt: int
    evaluations: int
    """How many evaluations, evenly over training; the untrained model is not among them."""
    rewards: list[str]
    """All rewards each evaluation is scored by."""
    protocol: str
    """Hash of what evaluation depends on: cells with different hashes are never compared."""


class Environment(Record):
    """Where a cell ran."""

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

    round: int
    images: int
    counts: Counts
    seconds: dict[str, float]
    """Training seconds by phase so far, evaluation not among them."""
    metrics: dict[str, float]
    """What the method reports: ``reward_mean``, ``reward_std``, ``loss`` and its own."""


class EvaluationRecord(Record):
    """One evaluation on the held-out prompts, from the same noise for every method."""

    round: int
    images: int
    """Training images so far."""
    counts: Counts
    training_seconds: float
    joules: float | None = None
    """Energy of the GPU in training so far; None where it has no counter of it."""
    rewards: dict[str, list[list[float]]]
    """Reward name to values ``[prompts][images]``."""
    diversity: dict[str, list[float]]
    """Encoder name to mean pairwise cosine distance of each prompt's images, in [0, 2]."""
    bad_images: dict[str, int]
    """``non_finite`` and ``constant`` images among those evaluated."""
    sampling_images_per_second: float


class StatusRecord(Record):
    """How a cell stands; its presence with state ``done`` makes the cell complete."""

    state: State
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


class RewardInfo(Record):
    """What a report says about a reward."""

    version: str
    unit: str
    range: tuple[float | None, float | None]
    differentiable: bool
    source: str


class MethodInfo(Record):
    """What a report says about a method."""

    title: str
    paper: str
    trains: bool


class RunRecord(Record):
    """A run: what was asked for."""

    schema_version: int = SCHEMA_VERSION
    suite: str
    suite_config: dict[str, Any]
    protocol: str
    command: str
    methods: dict[str, MethodInfo]
    rewards: dict[str, RewardInfo]
    seeds: list[int]
    cells: list[str]
    """Cell ids in matrix order, those that do not apply included."""
