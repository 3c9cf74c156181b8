"""Figures for print, drawn with seaborn: one PDF and one SVG each.

write_paper_figures(read_run(Path("runs/emoji-1")), Path("figures"))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib.axes import Axes

from reports import summary_figures
from reports.charts import axis_range, curve_intervals
from reports.print_style import MARKERS, MOST_COLUMNS, SETTINGS, line, panels, save, text
from reports.style import styles
from results import curves, scores
from results.analysis import task_table
from results.store import Run

Draw = Callable[..., None]


def write_paper_figures(run: Run, folder: Path) -> list[Path]:
    """Write the figures that the run has numbers for, as PDF and SVG; returns their paths.

    A panel for each training reward, and where diversity enters for each encoder:
    ``reward_diversity``, ``learning_curves``, ``attainment``, ``matched_diversity`` and ``panel``,
    which is of held-out rewards over the distance from base. Over all training rewards, if there
    are two or more: ``interquartile_means`` and ``performance_profiles``, a panel a measure.
    ``cross_rewards`` is the matrix of all methods and rewards.

    Raises OSError where the disk does, and ValueError for a run without a cell that is done.
    """
    if not scores.done(run):
        raise ValueError(f"{run.folder}: no cell is done, so there is nothing to draw")
    tasks, encoders = scores.tasks(run), scores.encoders(run)
    both = list(itertools.product(tasks, encoders))
    measures = summary_figures.measures_of(run)
    style: Any = seaborn.axes_style("ticks") | seaborn.plotting_context("paper") | SETTINGS
    with matplotlib.rc_context(style):
        return [
            *_figure(run, folder / "reward_diversity", _draw_scatter, both, len(encoders)),
            *_figure(run, folder / "learning_curves", _draw_curves, [(task,) for task in tasks]),
            *_figure(
                *(run, folder / "attainment", summary_figures.draw_attainment),
                *(summary_figures.attained_in(run), len(encoders)),
            ),
            *_figure(
                *(run, folder / "matched_diversity", summary_figures.draw_matched),
                *(summary_figures.matched_in(run), len(encoders)),
            ),
            *_figure(
                *(run, folder / "panel", summary_figures.draw_panel),
                summary_figures.panels_in(run),
            ),
            *_figure(run, folder / "interquartile_means", summary_figures.draw_means, measures),
            *_figure(run, folder / "performance_profiles", summary_figures.draw_profile, measures),
            *summary_figures.write_cross_rewards(run, folder / "cross_rewards"),
        ]


def _figure(
    run: Run, stem: Path, draw: Draw, each: Sequence[tuple[str, ...]], columns: int = MOST_COLUMNS
) -> list[Path]:
    """A figure with a panel for each of the tuples that ``draw`` takes; none without any."""
    if not each:
        return []
    figure, drawn = panels(len(each), columns)
    for axes, what in zip(drawn, each, strict=True):
        draw(axes, run, *what)
    return save(figure, drawn, stem)


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
            label=text(row.method),
        )
    axes.set_xlim(axis_range(row.diversity[encoder] for row in rows))
    axes.set_ylim(axis_range(row.reward for row in rows))
    axes.set_title(text(task))
    axes.set_xlabel(text(f"diversity ({encoder})"))
    axes.set_ylabel("held-out reward")


def _draw_curves(axes: Axes, run: Run, task: str) -> None:
    drawn = styles(run)
    single = curves.learning_curves(run, task)
    single = single[(single["kind"] == "reward") & (single["name"] == task)]
    means = curves.mean_curves(single)
    for method in single["method"].unique():
        mean, style = means[means["method"] == method], drawn[method]
        seaborn.lineplot(
            mean, x="images", y="mean", ax=axes, label=text(method), legend=False, **line(style)
        )
        axes.fill_between(
            mean["images"], mean["low"], mean["high"], color=style.colour, alpha=0.15, linewidth=0
        )
    for row in task_table(run, task):
        if scores.is_control(row.method) and row.reward.seeds:
            style = drawn[row.method]
            axes.axhline(row.reward.mean, color=style.colour, linestyle=":", label=text(row.method))
    controls = [row.reward for row in task_table(run, task) if scores.is_control(row.method)]
    axes.set_ylim(axis_range([*curve_intervals(single), *controls]))
    axes.set_title(text(task))
    axes.set_xlabel("training images")
    axes.set_ylabel("held-out reward")
