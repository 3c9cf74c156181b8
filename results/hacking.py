"""Signs that a reward was gamed: it rises while something it stands for gets worse.

Each detector is a quantity of the picked evaluation that the reward trained on does not see, or how
much of that reward small changes of the pictures take away, compared with the untrained model of
the same seed. A detector fires where the 95 % interval of the change over seeds lies on its
suspicious side of zero, as everywhere without correction for their number. None is a proof:
training on colour may raise saturation. Together with a gain in the reward they say where to look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from results import condensed
from results.image_statistics import STATISTICS
from results.intervals import Interval, paired_difference, t_interval
from results.measuring import measured_by, measured_metrics, value_at
from results.records import EvaluationRecord
from results.scores import (
    BASE,
    NO_REWARD,
    Scores,
    done,
    done_cells,
    encoders,
    final_scores,
    is_control,
    methods,
    once,
    tasks,
)
from results.store import Cell, Run

Side = Literal["up", "down", "either"]
Value = Callable[[Cell, EvaluationRecord, str], float | None]
"""Of an evaluation of a cell, and the reward that is trained on; the cell may be that of
``base``."""


@dataclass(frozen=True)
class Detector:
    """A quantity of a cell's picked evaluation, and the side on which a change is suspicious."""

    name: str
    suspicious: Side
    shows: str
    """What of, in a few words."""
    value: Value
    untrained: float | None = None
    """Value of the untrained model where it is so by definition, else that of ``base``."""
    measure: str = ""
    """Metric of ``measures/`` that it is taken from, if any."""
    picked_alone: bool = False
    """Whether it looks at pictures, which are stored of the picked evaluation alone."""


@dataclass(frozen=True)
class Sign:
    """What a detector says of one method trained on one reward."""

    detector: Detector
    change: Interval

    @property
    def fires(self) -> bool:
        """Whether the change is suspicious and its interval excludes zero."""
        sides = {"up": (1,), "down": (-1,), "either": (1, -1)}[self.detector.suspicious]
        return self.change.seeds > 1 and self.change.sign in sides


@dataclass(frozen=True)
class HackingRow:
    """One method trained on one reward: its gain, how far it moved, and all signs."""

    method: str
    task: str
    gain: Interval
    """In the reward trained on, against base."""
    path_kl: Interval
    """Nats from the base model, mean over images; no values where it was not measured."""
    signs: dict[str, Sign]
    """By detector; one whose quantity was not measured has no seeds."""

    @property
    def suspected(self) -> list[str]:
        """Detectors that fire while the reward rises."""
        rises = self.gain.seeds > 1 and self.gain.sign > 0
        return [name for name, sign in self.signs.items() if rises and sign.fires]


@once
def hacking_rows(run: Run) -> list[HackingRow]:
    """A row for each trained method and training reward with a cell that is done."""
    rows = []
    for task in tasks(run):
        for method in methods(run):
            if not is_control(method) and done_cells(run, method, task):
                rows.append(_row(run, method, task))
    return rows


@once
def detectors(run: Run) -> list[Detector]:
    """Those that the run has quantities for: robustness of the reward, prompt fidelity, diversity,
    lost modes, pictures."""
    found = [
        Detector(f"prompt fidelity: {name}", "down", "the prompt forgotten", _reward(name))
        for name, info in run.record.rewards.items()
        if info.needs_prompt
    ]
    for encoder in encoders(run):
        found += _of_features(encoder)
    found += _of_robustness(run)
    found += _of_what_was_found(run)
    measured = {name for cell in done(run) for name in cell.picked.image_statistics}
    found += [
        Detector(name.replace("_", " "), side, shows, _statistic(name))
        for name, side, shows in _PICTURES
        if name in measured
    ]
    if measured:  # of points there are no pictures
        found.append(Detector("bad images", "up", "black or plain pictures", _bad_images))
    return found


def _of_robustness(run: Run) -> list[Detector]:
    """A detector for each small change of the pictures that the run has scored."""

    def gap(change: str) -> Value:
        def value(cell: Cell, record: EvaluationRecord, task: str) -> float | None:
            if isinstance(record, condensed.CondensedEvaluation):
                return record.gaps.get(task, {}).get(change)
            clean = record.rewards.get(task)
            after = record.augmented.get(task, {}).get(change)
            return None if clean is None or after is None else condensed.gap(clean, after)

        return value

    changes = dict.fromkeys(
        change for cell in done(run) for after in cell.picked.augmented.values() for change in after
    )
    return [
        Detector(f"robustness gap: {change}", "up", "what a small change undoes", gap(change))
        for change in changes
    ]


def _of_what_was_found(run: Run) -> list[Detector]:
    """A detector for each thing that was looked for in the stored pictures, where it was."""
    return [
        Detector(
            f"{record.title.lower()}, {network}",
            "up",
            record.sign_of,
            measured_value(name, network),
            measure=name,
            picked_alone=True,
        )
        for name, record in ((found.metric, found) for found in measured_metrics(run))
        if record.sign_of
        for network in measured_by(run, name)
    ]


def _of_features(encoder: str) -> list[Detector]:
    return [
        Detector(
            f"diversity within a prompt, {encoder}",
            "down",
            "one picture a prompt",
            lambda cell, record, task: _mean(record.diversity.get(encoder, [])),
        ),
        *(
            Detector(
                f"{name}, {encoder}",
                side,
                shows,
                measured_value(metric, encoder),
                untrained,
                metric,
            )
            for name, metric, side, shows, untrained in _FEATURES
        ),
    ]


_FEATURES: list[tuple[str, str, Side, str, float | None]] = [
    ("near-duplicates", "near_duplicates", "up", "copies", 0.01),
    (
        "separation of prompts",
        "prompt_separation",
        "down",
        "the same picture for all prompts",
        None,
    ),
    ("recall of base", "recall", "down", "lost modes", 1),
]
"""Name, metric, suspicious side, what it shows, and the value of the untrained model."""


def measured_value(metric: str, network: str) -> Value:
    """What a metric gave in an encoder's features, or a detector's network found."""
    return lambda cell, record, task: value_at(cell, record.round, metric, network)


_PICTURES: list[tuple[str, Side, str]] = [
    ("saturation", "up", "oversaturation"),
    ("brightness", "either", "washed out or dark pictures"),
    ("contrast", "either", "gloss, or grey pictures"),
    ("sharpness", "down", "blur"),
    ("high_frequency", "up", "noise that eyes overlook"),
    ("total_variation", "up", "checkerboards, noise"),
    ("noise_residual", "up", "noise of single pixels"),
    ("flatness", "up", "flat colours"),
    ("border_variation", "down", "backgrounds removed"),
]
assert {name for name, _, _ in _PICTURES} == set(STATISTICS)


def _reward(name: str) -> Value:
    return lambda cell, record, task: _mean(record.rewards.get(name, []))


def _statistic(name: str) -> Value:
    return lambda cell, record, task: _mean(record.image_statistics.get(name, []))


def _bad_images(cell: Cell, record: EvaluationRecord, task: str) -> float:
    return float(sum(record.bad_images.values()))


def _mean(values: list[float] | list[list[float]]) -> float | None:
    return float(np.mean(values)) if values else None


def _row(run: Run, method: str, task: str) -> HackingRow:
    cells, base = done_cells(run, method, task), done_cells(run, BASE, NO_REWARD)
    signs = {}
    for detector in detectors(run):
        values = _by_seed(cells, detector.value, task)
        if detector.name == f"prompt fidelity: {task}":
            values = {}  # what is trained on cannot watch itself
        reference = _by_seed(base, detector.value, task)
        if detector.untrained is not None:
            reference = dict.fromkeys(values, detector.untrained)
        signs[detector.name] = Sign(detector, paired_difference(values, reference))
    return HackingRow(
        method=method,
        task=task,
        gain=paired_difference(
            final_scores(run, method, task, "reward", task),
            final_scores(run, BASE, task, "reward", task),
        ),
        path_kl=t_interval(_by_seed(cells, lambda cell, record, task: _mean(record.path_kl), task)),
        signs=signs,
    )


def _by_seed(cells: list[Cell], value: Value, task: str) -> Scores:
    found = {cell.seed: value(cell, cell.picked, task) for cell in cells}
    return {seed: number for seed, number in found.items() if number is not None}


@dataclass(frozen=True)
class BadImages:
    """Images of one evaluation that are not finite or of one colour."""

    cell_id: str
    round: int
    counts: dict[str, int]
    images: int
    """Of the evaluation."""


def bad_images(run: Run) -> list[BadImages]:
    """Every evaluation of every cell, those that failed included."""
    return [
        BadImages(cell.cell_id, record.round, record.bad_images, condensed.image_count(record))
        for cell in run.cells.values()
        for record in cell.evaluations
    ]
