"""Metrics over the distance from base with the turns of the panel, arranged for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import plotly.graph_objects as go

from reports.charts import (
    INTERVAL,
    axis_range,
    laid_out,
    mean_lines,
    plain_list,
    plain_text,
    reward_title,
    seed_line,
    trace,
)
from reports.shown import Shown
from reports.style import Style, styles
from results import costs, distance, numbers, panel
from results.distance import PANEL, REWARD, Checkpoint, MeanCheckpoint, MetricCurves, TurnRow
from results.intervals import Interval
from results.store import Run

Point = Checkpoint | MeanCheckpoint


def context(run: Run, shown: Shown) -> dict[str, Any]:
    """What the section on reward hacking shows of metrics over the distance."""
    found = {task: distance.turn_rows(run, task) for task in shown.tasks}
    chosen = {
        task: [row for row in rows if row.method in shown.methods] for task, rows in found.items()
    }
    turns: dict[str, list[TurnRow]] = {task: rows for task, rows in chosen.items() if rows}
    metrics = shown_metrics(run, shown)
    return {
        "turns": turns,
        "distance_metrics": [(name, _label(run, name)) for name in metrics],
        "distances": {task: _of_task(run, task, shown, metrics) for task in turns if metrics},
        "distance_title": axis_title(run),
        "same_quantity": panel.SAME_QUANTITY,
    }


def _of_task(run: Run, task: str, shown: Shown, metrics: list[str]) -> dict[str, Any]:
    return {
        "figure": figure(run, task, shown, metrics).to_plotly_json(),
        "rows": [
            (curves.method, len(curves.seeds), point)
            for curves in distance.metric_curves(run, task)
            if curves.method in shown.methods
            for point in curves.means
        ],
    }


def shown_metrics(run: Run, shown: Shown) -> list[str]:
    """Metrics that have a value after training on a reward shown, the panel first if it has; of a
    run that is not shown whole, no other than the panel and the rewards that are."""
    chosen = distance.metrics(run)
    if shown.cells is not None:
        chosen = [PANEL, *(REWARD + name for name in shown.rewards)]
    found = {
        name
        for task in shown.tasks
        for curves in distance.metric_curves(run, task)
        for points in curves.seeds.values()
        for point in points
        for name in chosen
        if point.images and math.isfinite(point.values[name])
    }
    return [name for name in chosen if name in found]


def _label(run: Run, metric: str) -> str:
    info = run.record.rewards.get(metric.removeprefix(REWARD))
    fidelity = metric.startswith(REWARD) and info is not None and info.needs_prompt
    return f"{metric}, prompt fidelity" if fidelity else metric


def axis_title(run: Run) -> str:
    """What metrics are drawn over: the distance from base, or training images where no path KL
    was measured."""
    title = costs.axes(run).get(costs.DISTANCE)
    return title if title is not None else costs.COSTS["images"]


def along(run: Run, points: Iterable[Point]) -> list[float]:
    """Where checkpoints lie on the axis of :func:`axis_title`; NaN for what was not measured."""
    has_distance = costs.DISTANCE in costs.axes(run)
    return [point.distance if has_distance else point.images for point in points]


def figure(run: Run, task: str, shown: Shown, metrics: list[str]) -> go.Figure:
    """Metrics over the distance from base, the first drawn until another is chosen: mean and
    interval over seeds, a thin line for each seed and a ring where its panel turns."""
    drawn, made = styles(run), go.Figure()
    every = [c for c in distance.metric_curves(run, task) if c.method in shown.methods]
    for curves in every:
        style = drawn[curves.method]
        for seed, points in curves.seeds.items():
            if seed in shown.seeds:
                x = _short(along(run, points))
                variants = _heights(metrics, [point.values for point in points])
                made.add_trace(seed_line(curves.method, style, variants=variants, x=x))
        made.add_traces(mean_lines(curves.method, style, _means(run, curves, metrics)))
    for curves in every:  # above all lines
        made.add_trace(_turns(run, curves, drawn[curves.method], metrics, shown))
    axes: dict[str, dict[str, Any]] = {
        name: {
            "title": metric_title(run, name),
            "range": axis_range(intervals(every, name)),
            "along": "y",
        }
        for name in metrics
    }
    first = axes[metrics[0]]
    laid_out(made, axes, first["title"], first["range"])
    return made.update_layout(xaxis={"title": {"text": axis_title(run)}, "rangemode": "tozero"})


def metric_title(run: Run, metric: str) -> str:
    """Title of the axis of a metric, with its unit."""
    if metric == PANEL:
        return "Panel, change in standard deviations"
    if metric.startswith(REWARD):
        return reward_title(run, metric.removeprefix(REWARD))
    return plain_text(metric[:1].upper() + metric[1:])


def _means(run: Run, curves: MetricCurves, metrics: list[str]) -> dict[str, dict[str, Any]]:
    """What each line of the interval is drawn by."""
    points = curves.means
    x = _short(along(run, points))
    ends = {
        end: [{name: getattr(p.values[name], end) for name in metrics} for p in points]
        for end in INTERVAL
    }
    return {end: {"variants": _heights(metrics, each), "x": x} for end, each in ends.items()}


def _heights(metrics: list[str], values: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {name: {"y": _short(each[name] for each in values)} for name in metrics}


def _turns(
    run: Run, curves: MetricCurves, style: Style, metrics: list[str], shown: Shown
) -> go.Scatter:
    """A ring at the turn of each seed's panel, in every metric."""
    turned = {
        seed: curves.seeds[seed][at]
        for seed, at in curves.turns.items()
        if at is not None and seed in shown.seeds
    }
    return trace(
        _heights(metrics, [point.values for point in turned.values()]),
        x=_short(along(run, turned.values())),
        text=[_turn_text(curves, seed, point) for seed, point in turned.items()],
        mode="markers",
        marker={
            "color": style.colour,
            "symbol": "circle-open",
            "size": 15,
            "line": {"color": style.colour, "width": 2.5},
        },
        cliponaxis=False,  # many lie on the axis
        hovertemplate="%{text}",
        name=plain_text(curves.method),
        showlegend=False,
        legendgroup=curves.method,
    )


def _turn_text(curves: MetricCurves, seed: int, point: Checkpoint) -> str:
    if point.images == 0:
        return f"seed {seed}: panel falls from the start"
    far = "" if math.isnan(point.distance) else f" at distance {numbers.number(point.distance)}"
    gain = numbers.number(curves.gain(point, seed), sign=True)
    height = numbers.number(point.values[PANEL], sign=True)
    return (
        f"seed {seed}: panel turns{far} after {point.images:,.0f} images<br>"
        f"{plain_text(curves.task)} {gain}, panel {height}"
    )


def intervals(every: list[MetricCurves], metric: str) -> Iterator[Interval]:
    """All that an axis of a metric has to hold: intervals over seeds, and every seed."""
    for curves in every:
        yield from (point.values[metric] for point in curves.means)
        for seed, points in curves.seeds.items():
            # Those of rounds that not all seeds have reached are drawn too.
            for point in points:
                value = point.values[metric]
                yield Interval(value, math.nan, math.nan, {seed: value})


def _short(values: Iterable[float]) -> list[float | None]:
    # Of dozens of metrics, and finer than any screen.
    return plain_list(float(f"{value:.5g}") for value in values)
