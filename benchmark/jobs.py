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
