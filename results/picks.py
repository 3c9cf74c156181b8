"""Which checkpoint each cell is reported by, and what it was picked by."""

from __future__ import annotations

from dataclasses import dataclass

from results.checkpoints import CheckpointRule, validation_score
from results.scores import done, measure, once
from results.store import Cell, Run


@dataclass(frozen=True)
class Checkpoint:
    """One evaluation of a cell, in the reward trained on."""

    round: int
    images: int
    """Training images so far."""
    validation: float
    """Mean over validation prompts and images; NaN if it was not measured."""
    test: float | None
    """Mean over test prompts and images."""
    picked: bool


@dataclass(frozen=True)
class Picks:
    """The checkpoints of one cell that trains, in training order."""

    cell: Cell
    rule: CheckpointRule
    checkpoints: list[Checkpoint]

    @property
    def picked(self) -> Checkpoint:
        """The one that is reported."""
        return next(checkpoint for checkpoint in self.checkpoints if checkpoint.picked)


@once
def picks(run: Run) -> list[Picks]:
    """Of every finished cell that trains."""
    return [
        Picks(cell, cell.config.checkpoint if cell.config else "last", _checkpoints(cell))
        for cell in done(run)
        if run.record.methods[cell.method].trains
    ]


def _checkpoints(cell: Cell) -> list[Checkpoint]:
    picked = cell.picked
    return [
        Checkpoint(
            round=record.round,
            images=record.images,
            validation=validation_score(record.validation),
            test=measure(record, "reward", cell.reward),
            picked=record is picked,
        )
        for record in cell.evaluations
    ]


def describe(run: Run) -> str:
    """The rule of the run's protocol and what it picked, in words."""
    found = picks(run)
    rules = {each.rule for each in found}
    if not found or rules == {"last"}:
        return "The last evaluation is reported, whatever it gave."
    earlier = sum(not each.checkpoints[-1].picked for each in found)
    return (
        "The evaluation of the highest mean reward on validation prompts is reported, the earlier "
        "of equals; what the test prompts gave has no part in it. In "
        f"{earlier} of {len(found)} trained cells it is not the last."
    )
