"""What a report needs of a cell, without the values of single images.

A run of ten thousand cells has some hundred million of them. The means that statistics are made
of are taken while a cell is read, as they would be later, so that every statistic is the same to
the last bit; what the page shows of single pictures is read again from the few cells that it
shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from results.checkpoints import validation_score
from results.records import CellConfig, EvaluationRecord, MeasureRecord, SamplerRecord

Images = list[list[float]]
"""Values ``[prompts][images]``."""

Shared = TypeVar("Shared")


class CondensedEvaluation(EvaluationRecord):
    """An evaluation whose values of single images are left out.

    What has the shape ``[prompts][images]`` in an evaluation has one value here, the mean over all
    of them, but for ``augmented``, of which only the names are left.
    """

    by_prompt: dict[str, list[float]] = Field(default_factory=dict)
    """The reward trained on: the mean over the images of each prompt."""
    means: dict[str, float] = Field(default_factory=dict)
    """Of every reward, the mean over prompts of the means over their images."""
    gaps: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Reward and augmentation to the mean of what the augmentation takes away."""
    evaluated: int = 0
    """How many images there were."""


class CondensedMeasure(MeasureRecord):
    """A metric of which only the picked evaluation is left whole."""

    numbers: dict[str, dict[int, float]] = Field(default_factory=dict)
    """Encoder and round to the value, of every evaluation where there is one."""


def condense(record: EvaluationRecord, reward: str) -> CondensedEvaluation:
    """An evaluation of a cell trained on ``reward``."""
    prompts = {name: prompt_means(values) for name, values in record.rewards.items()}
    means = {name: float(np.mean(values)) for name, values in prompts.items() if values}
    kept: dict[str, Any] = {name: getattr(record, name) for name in EvaluationRecord.model_fields}
    kept |= {
        "rewards": {name: _mean(values) for name, values in record.rewards.items()},
        "image_statistics": {n: _mean(values) for n, values in record.image_statistics.items()},
        "path_kl": _mean(record.path_kl),
        "validation": [[validation_score(record.validation)]] if any(record.validation) else [],
        "augmented": {n: dict.fromkeys(after, []) for n, after in record.augmented.items()},
        "by_prompt": {reward: prompts[reward]} if reward in prompts else {},
        "means": means,
        "gaps": {
            name: {change: gap(record.rewards[name], after) for change, after in changes.items()}
            for name, changes in record.augmented.items()
            if name in record.rewards
        },
        "evaluated": image_count(record),
    }
    # Of what was validated when it was read.
    return CondensedEvaluation.model_construct(_fields_set=set(), **kept)


def condense_sampler(record: SamplerRecord) -> SamplerRecord:
    """The same without the values of single images: one mean for each reward."""
    means = {name: _mean(values) for name, values in record.rewards.items()}
    return record.model_copy(update={"rewards": means})


def condense_measure(record: MeasureRecord, round_: int | None) -> CondensedMeasure:
    """A metric at the picked evaluation, that after ``round_``, without what lies behind it, and
    its numbers at all others."""
    picked = [value for value in record.values if value.round == round_]
    named = {value.encoder for value in picked}
    others = {value.encoder: value for value in reversed(record.values)}
    # An encoder of other evaluations has a row too, though without a value.
    kept = [*picked, *(value for name, value in others.items() if name not in named)]
    order = list(dict.fromkeys(value.encoder for value in record.values))
    kept.sort(key=lambda value: order.index(value.encoder))
    plain = [value.model_copy(update={"details": {}, "per_prompt": []}) for value in kept]
    numbers: dict[str, dict[int, float]] = {}
    for value in record.values:
        if value.value is not None:
            numbers.setdefault(value.encoder, {})[value.round] = value.value
    fields: dict[str, Any] = {name: getattr(record, name) for name in MeasureRecord.model_fields}
    fields |= {"values": plain, "numbers": numbers}
    return CondensedMeasure.model_construct(_fields_set=set(), **fields)


def prompt_means(values: Images) -> list[float]:
    """Mean over the images of each prompt; NaN for a prompt with a value that is."""
    return [float(np.mean(images)) for images in values]


def gap(clean: Images, after: Images) -> float:
    """Mean of what a change of the images takes away."""
    return float(np.mean(np.array(clean) - np.array(after)))


def image_count(record: EvaluationRecord) -> int:
    """How many images an evaluation scored."""
    if isinstance(record, CondensedEvaluation):
        return record.evaluated
    return sum(len(prompt) for prompt in next(iter(record.rewards.values()), []))


def is_condensed(records: Sequence[EvaluationRecord]) -> bool:
    """Whether any of them is."""
    return any(isinstance(record, CondensedEvaluation) for record in records)


def _mean(values: Images) -> Images:
    # Flat, for prompts of unequal numbers of images; the sum is taken in the same order.
    flat = [value for images in values for value in images]
    return [[float(np.mean(flat))]] if flat else []


class Pool:
    """Keeps one of what many cells have alike: prompts, settings, where they ran."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def one(self, value: Shared) -> Shared:
        """The first that was given and is equal to ``value``, with the same types in it."""
        plain = isinstance(value, list) and all(isinstance(item, str) for item in value)
        key = tuple(value) if plain and isinstance(value, list) else (type(value), repr(value))
        kept: Shared = self._known.setdefault(key, value)
        return kept

    def config(self, config: CellConfig) -> CellConfig:
        """A config with its large fields shared."""
        for name in (
            *("train_prompts", "evaluation_prompts", "validation_prompts", "rewards"),
            *("model", "method_config", "composites", "etas"),
        ):
            setattr(config, name, self.one(getattr(config, name)))
        return config
