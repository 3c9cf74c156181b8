"""What a cell's process is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.suite import EvaluationSettings, ModelSettings
from results.records import CellConfig, Environment
from results.reproduction import config_key

LIMIT_SECONDS = 1800.0
"""Most time that one of several processes of a cell waits for the others inside a round."""


@dataclass(frozen=True)
class CellJob:
    """One cell to run; light to import, since the parent of all cells needs no model."""

    config: CellConfig
    model: ModelSettings
    evaluation: EvaluationSettings
    environment: Environment
    folder: Path
    checkpoint_every: int | None = None
    """Rounds between two checkpoints; None for as many as keep their cost within 1 %."""

    @property
    def identity(self) -> dict[str, Any]:
        """Key and source of the cell, which every status of it has."""
        return {"key": config_key(self.config), "source": self.config.source}


@dataclass(frozen=True)
class Place:
    """Which of a cell's processes one is, and where it finds the others."""

    rank: int = 0
    count: int = 1
    file: Path | None = None
    """By which they find each other, made by the first; None for a cell of one process."""
    limit: float = LIMIT_SECONDS
    """Most seconds that it waits for the others in what they do together."""

    @property
    def leads(self) -> bool:
        """Whether it writes the cell's files, evaluates, and says how far the cell is."""
        return self.rank == 0
