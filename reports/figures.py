"""Figures for print, drawn with seaborn: one PDF and one SVG each.

write_paper_figures(read_run(Path("runs/emoji-1")), Path("figures"))
"""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.charts import axis_range, curve_intervals
from reports.style import Style, styles
from results import curves, scores, store
from results.analysis import task_table
from results.store import Run

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


def write_paper_figures(run: Run, folder: Path) -> list[Path]:
    """Write ``reward_diversity`` (a panel for each training reward and encoder) and
    ``learning_curves`` (a panel for each training reward) as PDF and SVG; returns their paths.

    Raises OSError where the disk does, and ValueError for a run without a cell that is done.
    """
    if not scores.done(run):
        raise ValueError(f"{run.folder}: no cell is done, so there is nothing to draw")
    tasks, encoders = scores.tasks(run), scores.encoders(run)
    paths = []
    style: Any = seaborn.axes_style("ticks") | seaborn.plotting_context("paper") | SETTINGS
    with matplotlib.rc_context(style):
        if encoders:
            figure, panels = _panels(len(tasks) * len(encoders), len(encoders))
            for axes, (task, encoder) in zip(
                panels, itertools.product(tasks, encoders), strict=True
            ):
                _draw_scatter(axes, run, task, encoder)
            paths += _finish(figure, panels, folder / "reward_diversity")
        figure, panels = _panels(len(tasks), MOST_COLUMNS)
        for axes, task in zip(panels, tasks, strict=True):
            _draw_curves(axes, run, task)
        paths += _finish(figure, panels, folder / "learning_curves")
    return paths


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, in rows of at most ``columns``."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    size = (COLUMN_WIDTH * columns, COLUMN_WIDTH * 0.85 * rows)
    figure = Figure(figsize=size, layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in every[count:]:
        unused.remove()
    return figure, every[:count]


def _draw_scatter(axes: Axes, run: Run, task: str, encoder: str) -> None:
    drawn = styles(run)
    rows = [row for row in task_table(run, task) if row.reward.seeds]
    for row in rows:
        diversity, style = row.diversity[encoder], drawn[row.method]
        axes.errorbar(
            diversity.mean,
            row.reward.mean,
            # Without two seeds there is no interval, and no bar.
            xerr=diversity.half_width if diversity.seeds > 1 else None,
            yerr=row.reward.half_width if row.reward.seeds > 1 else None,
            color=style.colour,
            marker=MARKERS[style.symbol],
            linestyle="none",
            capsize=2,
            label=_text(row.method),
        )
    axes.set_xlim(axis_range(row.diversity[encoder] for row in rows))
    axes.set_ylim(axis_range(row.reward for row in rows))
    axes.set_title(_text(task))
    axes.set_xlabel(_text(f"diversity ({encoder})"))
    axes.set_ylabel("held-out reward")


def _draw_curves(axes: Axes, run: Run, task: str) -> None:
    drawn = styles(run)
    single = curves.learning_curves(run, task)
    single = single[(single["kind"] == "reward") & (single["name"] == task)]
    means = curves.mean_curves(single)
    for method in single["method"].unique():
        mean, style = means[means["method"] == method], drawn[method]
        seaborn.lineplot(
            mean, x="images", y="mean", ax=axes, label=_text(method), legend=False, **_line(style)
        )
        axes.fill_between(
            mean["images"], mean["low"], mean["high"], color=style.colour, alpha=0.15, linewidth=0
        )
    for row in task_table(run, task):
        if scores.is_control(row.method) and row.reward.seeds:
            style = drawn[row.method]
            axes.axhline(
                row.reward.mean, color=style.colour, linestyle=":", label=_text(row.method)
            )
    controls = [row.reward for row in task_table(run, task) if scores.is_control(row.method)]
    axes.set_ylim(axis_range([*curve_intervals(single), *controls]))
    axes.set_title(_text(task))
    axes.set_xlabel("training images")
    axes.set_ylabel("held-out reward")


def _line(style: Style) -> dict[str, object]:
    return {
        "color": style.colour,
        "marker": MARKERS[style.symbol],
        "markersize": 4,
        "linestyle": DASHES[style.dash],
    }


def _text(name: str) -> str:
    """A name as it is: between two dollar signs matplotlib would read a formula."""
    return name.replace("$", r"\$")


def _finish(figure: Figure, panels: list[Axes], stem: Path) -> list[Path]:
    for axes in panels:
        seaborn.despine(ax=axes)
    _add_legend(figure, panels)
    paths = []
    for suffix, metadata in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{suffix}")
        store.write_bytes(path, content.getvalue())
        paths.append(path)
    return paths


def _add_legend(figure: Figure, panels: list[Axes]) -> None:
    labelled: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label, handle)
    columns = min(len(labelled), round(figure.get_figwidth() / LEGEND_ENTRY_WIDTH))
    figure.legend(
        list(labelled.values()), list(labelled), loc="outside lower center", ncols=max(1, columns)
    )
