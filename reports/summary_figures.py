"""Figures for print of what is summarised: trade-off, aggregates, the panel, and all rewards at
once."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes

from reports.charts import axis_range
from reports.metric_views import FULL_HEAT, shifts
from reports.panel_views import along, axis_title, intervals
from reports.print_style import DASHES, MARKERS, line, save, sized, text
from reports.statistics import measure_of, measures, thresholds
from reports.style import styles
from results import analysis, distance, matched, numbers, scores
from results.aggregates import AggregateRow, aggregate_table, performance_profile, profile_band
from results.distance import PANEL, MetricCurves
from results.matched import Matched, attained, trade_off_table
from results.store import Run

CELL = (0.75, 0.24)
"""Inches of a cell of the matrix of rewards: width and height."""


def attained_in(run: Run) -> list[tuple[str, ...]]:
    """Pairs of training reward and encoder in which something is attained."""
    both = itertools.product(scores.tasks(run), scores.encoders(run))
    return [(task, encoder) for task, encoder in both if attained(run, task, encoder)]


def draw_attainment(axes: Axes, run: Run, task: str, encoder: str) -> None:
    """Reward and diversity that half of the seeds attain, a step line a method."""
    drawn = styles(run)
    for method, surface in attained(run, task, encoder).items():
        # By rising diversity; from corner to corner along the edge of what lies below both.
        axes.step(
            surface[::-1, 1],
            surface[::-1, 0],
            where="pre",
            label=text(method),
            **line(drawn[method]),
        )
    axes.set_title(text(task))
    axes.set_xlabel(text(f"diversity ({encoder})"))
    axes.set_ylabel("attained reward")


def matched_in(run: Run) -> list[tuple[str, ...]]:
    """Pairs of training reward and encoder in which a method reaches a level of reward."""
    return [
        (task, encoder)
        for task in scores.tasks(run)
        for encoder in scores.encoders(run)
        if any(
            at.reached
            for row in trade_off_table(run, task)
            if row.encoder == encoder
            for at in row.diversity_at.values()
        )
    ]


def draw_matched(axes: Axes, run: Run, task: str, encoder: str) -> None:
    """Diversity where the reward reaches shares of best-of-n's gain, with intervals over seeds.

    Of a level that only some seeds reach, the mean of those is drawn, open and without interval;
    of one that none reaches, nothing.
    """
    drawn = styles(run)
    rows = [row for row in trade_off_table(run, task) if row.encoder == encoder]
    places = {share: place for place, share in enumerate(matched.REWARD_LEVELS)}
    for index, row in enumerate(rows):
        # Side by side, so that intervals do not cover each other.
        aside = 0.6 * ((index + 0.5) / len(rows) - 0.5)
        style, label = drawn[row.method], text(row.method)
        for share, at in row.diversity_at.items():
            if not at.reached:
                continue
            axes.errorbar(
                places[share] + aside,
                at.value.mean,
                yerr=at.value.half_width if _has_interval(at) else None,
                color=style.colour,
                marker=MARKERS[style.symbol],
                markerfacecolor=style.colour if at.reached == at.seeds else "none",
                linestyle="none",
                capsize=2,
                label=label,
            )
            label = "_"  # one entry of the legend a method
    values = [at.value for row in rows for at in row.diversity_at.values()]
    axes.set_ylim(axis_range(values))
    axes.set_xticks(list(places.values()), [f"{100 * share:.0f} %" for share in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_title(text(task))
    axes.set_xlabel("share of best-of-n's gain in reward")
    axes.set_ylabel(text(f"diversity there ({encoder})"))


def _has_interval(at: Matched) -> bool:
    return at.value.seeds > 1 and bool(np.isfinite(at.value.half_width))


def measures_of(run: Run) -> list[tuple[str, ...]]:
    """What is put together over the training rewards, where a method has a complete seed."""
    rows = aggregate_table(run)
    return [(name,) for name in measures(rows) if _rows(rows, name)]


def _rows(rows: list[AggregateRow], name: str) -> list[AggregateRow]:
    return [row for row in rows if measure_of(row) == name and row.blocks.seeds]


def draw_means(axes: Axes, run: Run, name: str) -> None:
    """Interquartile mean of every method with its bootstrap interval, a row a method."""
    drawn = styles(run)
    table = aggregate_table(run)
    rows = _rows(table, name)
    for place, row in enumerate(rows):
        style = drawn[row.method]
        axes.errorbar(
            row.value.mean,
            place,
            xerr=row.value.half_width if len(row.blocks.seeds) > 1 else None,
            color=style.colour,
            marker=MARKERS[style.symbol],
            linestyle="none",
            capsize=2,
        )
    axes.set_yticks(range(len(rows)), [text(row.method) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(axis_range(row.value for row in rows))
    axes.set_xlabel(text(f"{measures(table)[name]}, interquartile mean"))


def draw_profile(axes: Axes, run: Run, name: str) -> None:
    """Share of the runs above a score, with pointwise intervals; base defines the scale."""
    drawn = styles(run)
    table = aggregate_table(run)
    rows = [row for row in _rows(table, name) if row.method != scores.BASE]
    limits = thresholds(rows, name)
    for row in rows:
        style = drawn[row.method]
        low, high = profile_band(row.blocks.scores, limits)
        axes.fill_between(limits, low, high, color=style.colour, alpha=0.08, linewidth=0)
        axes.plot(
            limits,
            performance_profile(row.blocks.scores, limits),
            color=style.colour,
            linestyle=DASHES[style.dash],
            label=text(row.method),
        )
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(text(measures(table)[name]))
    axes.set_ylabel("share of runs above")


def panels_in(run: Run) -> list[tuple[str, ...]]:
    """Training rewards on which the panel of a method has a value at every checkpoint."""
    return [
        (task,)
        for task in scores.tasks(run)
        if any(curves.turns for curves in distance.metric_curves(run, task))
    ]


def draw_panel(axes: Axes, run: Run, task: str) -> None:
    """The panel over the distance from base, with a ring at the turn of each seed."""
    drawn = styles(run)
    every = [curves for curves in distance.metric_curves(run, task) if curves.turns]
    for curves in every:
        style, points = drawn[curves.method], curves.means
        x, levels = along(run, points), [point.values[PANEL] for point in points]
        axes.plot(x, [level.mean for level in levels], label=text(curves.method), **line(style))
        low, high = [level.low for level in levels], [level.high for level in levels]
        axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
        _draw_seeds(axes, run, curves, style.colour)
    axes.set_ylim(axis_range(intervals(every, PANEL)))
    axes.set_title(text(task))
    axes.set_xlabel(axis_title(run))
    axes.set_ylabel("panel, standard deviations")


def _draw_seeds(axes: Axes, run: Run, curves: MetricCurves, colour: str) -> None:
    for points in curves.seeds.values():
        heights = [point.values[PANEL] for point in points]
        axes.plot(along(run, points), heights, color=colour, alpha=0.35, linewidth=0.5)
    turns = [curves.seeds[seed][at] for seed, at in curves.turns.items() if at is not None]
    heights = [point.values[PANEL] for point in turns]
    axes.plot(
        along(run, turns),
        heights,
        linestyle="none",
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=colour,
    )


def write_cross_rewards(run: Run, stem: Path) -> list[Path]:
    """The matrix of methods scored by every reward; colours are changes in units of the spread of
    the untrained model's images, as on the page."""
    rows = analysis.cross_rewards(run)
    names = scores.evaluated_rewards(run)
    if not (rows and names):
        return []
    moved = shifts(run, rows)
    labels = [
        text(row.method if row.method == scores.BASE else f"{row.method} on {row.task}")
        for row in rows
    ]
    heat = pd.DataFrame(
        [[moved.get((row.task, row.method, name), 0.0) for name in names] for row in rows],
        index=labels,
        columns=[text(name) for name in names],
    )
    shown = [[_level(row, name) for name in names] for row in rows]
    figure, axes = sized(1.6 + CELL[0] * len(names), 1.3 + CELL[1] * len(rows))
    seaborn.heatmap(
        heat,
        ax=axes,
        annot=np.array(shown),
        fmt="",
        cmap="vlag",
        center=0,
        vmin=-FULL_HEAT,
        vmax=FULL_HEAT,
        linewidths=0.5,
        annot_kws={"fontsize": 6},
        cbar_kws={"label": "change in standard deviations of base's images"},
    )
    axes.tick_params(length=0)
    axes.set_xticklabels(axes.get_xticklabels(), rotation=30, ha="right")
    return save(figure, [axes], stem)


def _level(row: analysis.CrossRow, name: str) -> str:
    level = row.scores.get(name)
    return numbers.number(level.mean) if level is not None and level.values else ""
