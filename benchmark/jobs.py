"""What a cell's process is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.suite import EvaluationSettings, ModelSettings
from results.records import CellConfig, Environment


@dataclass(frozen=True)
class CellJob:
    """One cell to run; light to import, since the parent of all cells needs no model."""

    config: CellConfig
    model: ModelSettings
    evaluation: EvaluationSettings
    environment: Environment
    folder: Path
    identity: str = ""
    """Of the cell beyond its settings, such as a key that covers its code: a checkpoint of another
    is never gone on from."""
    checkpoint_every: int | None = None
    """Rounds between two checkpoints; None for as many as keep their cost within 1 %."""
