"""How methods are told apart: colour, symbol and dash, the same in every figure and table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from results import scores
from results.store import Run

# Okabe and Ito's colours, which readers with any colour vision can tell apart; neighbours in the
# list are related hues, as neighbouring methods tend to be related.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#F0E442")
PHASE_COLOURS = (
    *("#999999", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#4D4D4D"),
    *("#F0E442", "#CFCFCF"),
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dashdot", "longdash")


@dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in every figure; colour is never the only difference."""

    colour: str
    symbol: str
    dash: str


CONTROL_STYLES = {
    scores.BASE: Style("#8A8A8A", "x", "dot"),
    scores.BEST_OF_N: Style("#CC79A7", "star", "dot"),
}


def styles(run: Run) -> dict[str, Style]:
    """Style of every method of a run."""
    trained = [method for method in scores.methods(run) if not scores.is_control(method)]
    chosen = {
        method: Style(
            COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)], DASHES[i // len(COLOURS) % 4]
        )
        for i, method in enumerate(trained)
    }
    others = [name for name in scores.methods(run) if scores.is_control(name)]
    return CONTROL_STYLES | {name: _control(name) for name in others} | chosen


def _control(method: str) -> Style:
    """That of the control; one of a second run folder has another symbol."""
    style = CONTROL_STYLES[scores.original_name(method)]
    return style if method in CONTROL_STYLES else replace(style, symbol="triangle-up")
