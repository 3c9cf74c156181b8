"""How figures for print look, and how they are written: one PDF and one SVG each."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.style import Style
from results import store

MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "pentagon": "p",
    "hexagon": "h",
    "x": "X",
    "star": "*",
}
DASHES = {"solid": "-", "dash": "--", "dashdot": "-.", "longdash": (0, (8, 3)), "dot": ":"}
COLUMN_WIDTH = 3.3
"""Inches of one column of a two-column paper."""
MOST_COLUMNS = 2
"""Panels side by side, where nothing else says how many."""
LEGEND_ENTRY_WIDTH = 1.1
"""Inches of the legend's width that one entry is reckoned with."""

SETTINGS = {
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "axes.linewidth": 0.6,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    # Type 42 keeps text as text; publishers refuse type 3.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    # Names of clipping paths are random otherwise: the same run gives the same file.
    "svg.hashsalt": "figure",
}
FORMATS: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Suffix to the metadata that would differ from one writing to the next."""


def panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, in rows of at most ``columns``."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    size = (COLUMN_WIDTH * columns, COLUMN_WIDTH * 0.85 * rows)
    figure = Figure(figsize=size, layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in every[count:]:
        unused.remove()
    return figure, every[:count]


def sized(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def line(style: Style) -> dict[str, Any]:
    """Colour, marker and dash of a method's line."""
    return {
        "color": style.colour,
        "marker": MARKERS[style.symbol],
        "markersize": 4,
        "linestyle": DASHES[style.dash],
    }


def text(name: str) -> str:
    """A name as it is: between two dollar signs matplotlib would read a formula."""
    return name.replace("$", r"\$")


def save(figure: Figure, drawn: list[Axes], stem: Path) -> list[Path]:
    """Write the figure with one legend for all its panels; returns the paths.

    Raises OSError where the disk does.
    """
    for axes in drawn:
        seaborn.despine(ax=axes)
    _add_legend(figure, drawn)
    paths = []
    for suffix, metadata in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{suffix}")
        store.write_bytes(path, content.getvalue())
        paths.append(path)
    return paths


def _add_legend(figure: Figure, drawn: list[Axes]) -> None:
    labelled: dict[str, Any] = {}
    for axes in drawn:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label, handle)
    if not labelled:
        return
    columns = min(len(labelled), round(figure.get_figwidth() / LEGEND_ENTRY_WIDTH))
    figure.legend(
        list(labelled.values()), list(labelled), loc="outside lower center", ncols=max(1, columns)
    )
