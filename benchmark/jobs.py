"""What a cell's process is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.suite import EvaluationSettings, ModelSettings
from results.records import CellConfig, Environment
from results.reproduction import config_key


@dataclass(frozen=True)
class CellJob:
    """One cell to run; light to import, since the parent of all cells needs no model."""

    config: CellConfig
    model: ModelSettings
    evaluation: EvaluationSettings
    environment: Environment
    folder: Path

    @property
    def identity(self) -> dict[str, Any]:
        """Key and source of the cell, which every status of it has."""
        return {"key": config_key(self.config), "source": self.config.source}
