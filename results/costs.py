"""What training cost: the quantities that curves are drawn over, phases, networks, energy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from results.records import Counts, EvaluationRecord
from results.scores import done, once
from results.store import Cell, Run

COSTS = {
    "images": "Training images",
    "training_seconds": "Training seconds",
    "reward_calls": "Reward calls",
    "reward_gradient_calls": "Reward gradient calls",
    "unet_forward": "UNet samples forward",
    "unet_backward": "UNet samples backward",
    "vae_encode": "VAE encodes",
    "vae_decode": "VAE decodes",
    "optimizer_steps": "Optimizer steps",
    "joules": "Joules",
    "peak_memory": "Peak memory, GB",
    "peak_gpu_memory": "Peak GPU memory, GB",
}
"""Quantities that a curve can be drawn over, with the title of that axis. Peaks are of training
rounds so far, in 1e9 bytes, those of the GPU as tensors took it."""

DISTANCE = "base_distance"
"""Root of the path KL from base, which grows in proportion to the way that a policy has gone. It is
no cost, and curves can be drawn over it too: methods are then compared where they went as far."""
DISTANCE_TITLE = "Distance from base (root of path KL)"

PHASES = (
    *("setup", "sample", "decode", "reward", "loss", "backward", "optimizer", "other"),
    *("evaluation", "saving"),
)
"""Phases as cells name them, in the order in which they are shown; those of older cells have
other names, which are shown too."""


def of(record: EvaluationRecord) -> dict[str, float]:
    """All :data:`COSTS` of training so far, and :data:`DISTANCE`; NaN for what was not measured."""
    counted: dict[str, float] = {name: getattr(record.counts, name) for name in Counts.model_fields}
    sometimes: dict[str, float | None] = {
        "joules": record.joules,
        "peak_memory": _gigabytes(record.peak_memory_bytes),
        "peak_gpu_memory": _gigabytes(record.peak_gpu_allocated_bytes),
    }
    unknown = math.nan if record.training_seconds > 0 else 0.0
    return (
        counted
        | {"images": record.images, "training_seconds": record.training_seconds}
        | {name: unknown if value is None else value for name, value in sometimes.items()}
        | {DISTANCE: _distance(record)}
    )


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e9


def _distance(record: EvaluationRecord) -> float:
    nats = [value for images in record.path_kl for value in images]
    if not nats:
        return math.nan if record.images else 0.0
    return math.sqrt(math.fsum(nats) / len(nats))


@once
def axes(run: Run) -> dict[str, str]:
    """What curves of the run are drawn over: :func:`measured`, and the distance from base."""
    gone = any(of(cell.evaluations[-1])[DISTANCE] > 0 for cell in done(run))
    return measured(run) | ({DISTANCE: DISTANCE_TITLE} if gone else {})


@once
def measured(run: Run) -> dict[str, str]:
    """Those of :data:`COSTS` that any cell of the run has; the training images always."""
    ends = [of(cell.evaluations[-1]) for cell in done(run)]
    return {
        name: title
        for name, title in COSTS.items()
        if name == "images" or any(end[name] > 0 for end in ends)
    }


def in_order(phases: Iterable[str]) -> list[str]:
    """Each phase once: the known ones in the order of :data:`PHASES`, others before the first
    that follows training."""
    named = list(dict.fromkeys(phases))
    others = [name for name in named if name not in PHASES]
    known = [name for name in PHASES if name in named]
    first = next((i for i, name in enumerate(known) if name in ("evaluation", "saving")), None)
    return [*known[:first], *others, *(known[first:] if first is not None else [])]


def network_share(cells: Iterable[Cell]) -> float:
    """Share of training time inside the networks, mean over cells; NaN where not measured."""
    shares = [
        share(cell.status.network_seconds, cell.status.training_seconds_by_phase) for cell in cells
    ]
    return _mean(shares)


def share(networks: Mapping[str, float] | None, phases: Mapping[str, float]) -> float:
    """Seconds inside networks over seconds of all phases; NaN where either is not measured."""
    total = sum(phases.values())
    return sum(networks.values()) / total if networks is not None and total > 0 else math.nan


def columns(cells: list[Cell]) -> dict[str, object]:
    """Columns of a cost table, of cells that belong together: network_share, joules (means; NaN
    where not measured), and the highest peaks of GPU memory (0 without a GPU)."""
    statuses = [cell.status for cell in cells]
    joules = [math.nan if each.joules is None else each.joules for each in statuses]
    return {
        "network_share": network_share(cells),
        "joules": _mean(joules),
        "peak_gpu_allocated_bytes": max(each.peak_gpu_allocated_bytes or 0 for each in statuses),
        "peak_gpu_reserved_bytes": max(each.peak_gpu_reserved_bytes or 0 for each in statuses),
    }


def _mean(values: list[float]) -> float:
    """NaN if a single value is."""
    return math.fsum(values) / len(values) if values else math.nan
