"""Figures for print, drawn with seaborn: one PDF and one PNG each.

write_paper_figures(read_run(Path("runs/emoji-1")), Path("figures"))
"""

from __future__ import annotations

import io
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
}


def write_paper_figures(run: Run, folder: Path) -> list[Path]:
    """Write ``reward_diversity`` and ``learning_curves`` as PDF and PNG; returns their paths.

    A panel for each training reward. Raises OSError where the disk does, and ValueError for a
    run without a cell that is done.
    """
    if not scores.done(run):
        raise ValueError(f"{run.folder}: no cell is done, so there is nothing to draw")
    drawings = {"reward_diversity": _draw_scatter, "learning_curves": _draw_curves}
    paths = []
    style: Any = seaborn.axes_style("ticks") | seaborn.plotting_context("paper") | SETTINGS
    with matplotlib.rc_context(style):
        for name, draw in drawings.items():
            tasks = scores.tasks(run)
            size = (COLUMN_WIDTH * len(tasks), COLUMN_WIDTH * 0.85)
            figure = Figure(figsize=size, layout="constrained")
            panels = figure.subplots(1, len(tasks), squeeze=False)[0]
            for axes, task in zip(panels, tasks, strict=True):
                draw(axes, run, task)
                axes.set_title(task)
                seaborn.despine(ax=axes)
            _add_legend(figure, list(panels))
            paths += _save(figure, folder / name)
    return paths


def _draw_scatter(axes: Axes, run: Run, task: str) -> None:
    encoder = scores.encoders(run)[0]
    drawn = styles(run)
    for row in task_table(run, task):
        diversity = row.diversity[encoder]
        if row.reward.seeds:
            style = drawn[row.method]
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
                label=row.method,
            )
    rows = task_table(run, task)
    axes.set_xlim(axis_range(row.diversity[encoder] for row in rows))
    axes.set_ylim(axis_range(row.reward for row in rows))
    axes.set_xlabel(f"diversity ({encoder})")
    axes.set_ylabel("held-out reward")


def _draw_curves(axes: Axes, run: Run, task: str) -> None:
    drawn = styles(run)
    single = curves.learning_curves(run, task)
    single = single[(single["kind"] == "reward") & (single["name"] == task)]
    means = curves.mean_curves(single)
    for method in single["method"].unique():
        mean, style = means[means["method"] == method], drawn[method]
        seaborn.lineplot(
            mean, x="images", y="mean", ax=axes, label=method, legend=False, **_line(style)
        )
        axes.fill_between(
            mean["images"], mean["low"], mean["high"], color=style.colour, alpha=0.15, linewidth=0
        )
    for row in task_table(run, task):
        if row.method in scores.CONTROLS and row.reward.seeds:
            style = drawn[row.method]
            axes.axhline(row.reward.mean, color=style.colour, linestyle=":", label=row.method)
    controls = [row.reward for row in task_table(run, task) if row.method in scores.CONTROLS]
    axes.set_ylim(axis_range([*curve_intervals(single), *controls]))
    axes.set_xlabel("training images")
    axes.set_ylabel("held-out reward")


def _line(style: Style) -> dict[str, object]:
    return {
        "color": style.colour,
        "marker": MARKERS[style.symbol],
        "markersize": 4,
        "linestyle": DASHES[style.dash],
    }


def _add_legend(figure: Figure, panels: list[Axes]) -> None:
    labelled: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labelled.setdefault(label, handle)
    handles, labels = list(labelled.values()), list(labelled)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = []
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix, dpi=300, metadata=metadata)
        path = stem.with_suffix(f".{suffix}")
        store.write_bytes(path, content.getvalue())
        paths.append(path)
    return paths
