"""Interactive charts of the page, as plotly figures.

A point of the scatter carries its method and seeds in ``customdata``, by which the page's script
finds its pictures.

A trace that can be drawn over several quantities carries them in ``meta.variants``: name of the
quantity to the trace attributes it sets; the layout's ``meta.axes`` has title and range of the
horizontal axis for each, or with ``along`` "y" of the vertical one. The page's script applies the
chosen one, and sets the colours of text and grid, which follow the reader's light or dark setting.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.shown import Shown
from reports.style import Style, styles
from results import costs, curves, scores
from results.analysis import TaskRow, task_table
from results.intervals import Interval, t_interval
from results.store import Run


def scatter(run: Run, task: str, shown: Shown) -> go.Figure:
    """Final reward against diversity, with each method's way there from the untrained model."""
    figure = go.Figure()
    drawn = styles(run)
    measures: list[curves.Measure] = [("reward", task)]
    measures += [("diversity", encoder) for encoder in scores.encoders(run)]
    means = curves.mean_curves(curves.learning_curves(run, task, measures))
    rows = [row for row in task_table(run, task) if row.reward.seeds]
    rows = [row for row in rows if row.method in shown.methods]
    for row in rows:
        path = means[means["method"] == row.method]
        figure.add_trace(_path(row.method, drawn[row.method], path, task, list(row.diversity)))
        figure.add_trace(_seed_points(row, drawn[row.method], shown))
        figure.add_trace(_mean_point(row, drawn[row.method], shown))
    axes = {
        encoder: {
            "title": plain_text(f"Diversity ({encoder})"),
            "range": axis_range(row.diversity[encoder] for row in rows),
        }
        for encoder in scores.encoders(run)
    }
    return laid_out(figure, axes, reward_title(run, task), axis_range(row.reward for row in rows))


def _path(
    method: str, style: Style, path: pd.DataFrame, task: str, encoders: list[str]
) -> go.Scatter:
    rewards = path[(path["kind"] == "reward") & (path["name"] == task)]
    variants = {
        encoder: {"x": path.loc[(path["kind"] == "diversity") & (path["name"] == encoder), "mean"]}
        for encoder in encoders
    }
    return trace(
        variants,
        y=plain_list(rewards["mean"]),
        mode="lines",
        line={"color": style.colour, "width": 1.5, "dash": style.dash},
        opacity=0.6,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=method,
    )


def _seed_points(row: TaskRow, style: Style, shown: Shown) -> go.Scatter:
    seeds = [seed for seed in row.reward.values if seed in shown.seeds]
    variants = {
        encoder: {"x": [diversity.values.get(seed) for seed in seeds]}
        for encoder, diversity in row.diversity.items()
    }
    return trace(
        variants,
        y=plain_list(row.reward.values[seed] for seed in seeds),
        text=[f"seed {seed}" for seed in seeds],
        customdata=[[row.method, seed] for seed in seeds],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 6, "opacity": 0.55},
        hovertemplate="%{text}: reward %{y:.4g}, diversity %{x:.4g}",
        name=plain_text(row.method),
        showlegend=False,
        legendgroup=row.method,
    )


def _mean_point(row: TaskRow, style: Style, shown: Shown) -> go.Scatter:
    variants = {
        encoder: {"x": [diversity.mean], "error_x.array": [_half(diversity)]}
        for encoder, diversity in row.diversity.items()
    }
    bar = {"type": "data", "color": style.colour, "thickness": 1.5, "width": 4}
    return trace(
        variants,
        y=[row.reward.mean],
        customdata=[[row.method, *(s for s in row.reward.values if s in shown.seeds)]],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 13},
        error_y=bar | {"array": [_half(row.reward)]},
        error_x=bar | {"array": []},
        hovertemplate="mean: reward %{y:.4g}, diversity %{x:.4g}",
        name=plain_text(row.method),
        legendgroup=row.method,
    )


def learning_curve(run: Run, task: str, shown: Shown) -> go.Figure:
    """Held-out reward over what training cost, or how far it went, mean and interval over seeds."""
    figure = go.Figure()
    drawn_over = costs.axes(run)
    drawn = styles(run)
    single = curves.learning_curves(run, task, [("reward", task)])
    single = single[single["method"].isin(shown.methods)]
    means = curves.mean_curves(single)
    for method in shown.methods:
        of_method = single[(single["method"] == method) & single["seed"].isin(shown.seeds)]
        for _, curve in of_method.groupby("seed"):
            variants = _over_costs(curve, drawn_over)
            figure.add_trace(
                seed_line(method, drawn[method], variants=variants, y=plain_list(curve["value"]))
            )
        mean = means[means["method"] == method]
        if len(mean):
            variants = _over_costs(mean, drawn_over)
            band = {end: {"variants": variants, "y": plain_list(mean[end])} for end in INTERVAL}
            figure.add_traces(mean_lines(method, drawn[method], band))
    ends = {cost: float(single[cost].max()) for cost in drawn_over} if len(single) else {}
    controls = [row for row in task_table(run, task) if scores.is_control(row.method)]
    controls = [row for row in controls if row.method in shown.methods]
    for row in controls:
        if row.reward.seeds and ends:
            figure.add_trace(_level(row, drawn[row.method], ends))
    axes: dict[str, dict[str, Any]] = {
        cost: {"title": title, "range": None} for cost, title in drawn_over.items()
    }
    drawn_intervals = [*curve_intervals(single), *(row.reward for row in controls)]
    return laid_out(figure, axes, reward_title(run, task), axis_range(drawn_intervals))


def curve_intervals(single: pd.DataFrame) -> list[Interval]:
    """The interval over seeds at every point of single curves."""
    return [
        t_interval(dict(zip(part["seed"], part["value"], strict=True)))
        for _, part in single.groupby(["method", "round"])
    ]


def axis_range(intervals: Iterable[Interval]) -> tuple[float, float] | None:
    """Ends of an axis that holds every seed, and intervals as far as they leave room for that.

    Intervals of two or three seeds can be many times as long as the differences between methods,
    and would squeeze those into a line. None where there is nothing to show.
    """
    shown = [interval for interval in intervals if interval.seeds]
    values = [value for each in shown for value in each.values.values() if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    lows = [each.low for each in shown if each.seeds > 1]
    highs = [each.high for each in shown if each.seeds > 1]
    least, most = min([low, *lows]) - 0.06 * span, max([high, *highs]) + 0.06 * span
    return max(least, low - 0.4 * span), min(most, high + 0.4 * span)


def _over_costs(frame: pd.DataFrame, drawn_over: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {cost: {"x": frame[cost]} for cost in drawn_over}


INTERVAL = ("high", "low", "mean")
"""What :func:`mean_lines` draws."""


def seed_line(method: str, style: Style, **drawn: Any) -> go.Scatter:
    """A thin line for one seed; ``drawn`` is what :func:`trace` takes."""
    return trace(
        **drawn,
        mode="lines",
        line={"color": style.colour, "width": 1},
        opacity=0.35,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=method,
    )


def mean_lines(method: str, style: Style, drawn: dict[str, dict[str, Any]]) -> list[go.Scatter]:
    """The mean over seeds with its band; ``drawn`` has what :func:`trace` takes for each of
    ``INTERVAL``."""
    common: dict[str, Any] = {"legendgroup": method, "mode": "lines"}
    edge = common | {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0}}
    red, green, blue = (int(style.colour[i : i + 2], 16) for i in (1, 3, 5))
    return [
        trace(**drawn["high"], **edge),
        trace(
            **drawn["low"],
            fill="tonexty",
            fillcolor=f"rgba({red},{green},{blue},0.14)",
            **edge,
        ),
        trace(
            **drawn["mean"],
            name=plain_text(method),
            line={"color": style.colour, "width": 2.5, "dash": style.dash},
            marker={"color": style.colour, "symbol": style.symbol, "size": 7},
            hovertemplate="%{y:.4g} at %{x:,.4g}",
            **(common | {"mode": "lines+markers"}),
        ),
    ]


def _level(row: TaskRow, style: Style, ends: dict[str, float]) -> go.Scatter:
    return trace(
        {cost: {"x": [0, end]} for cost, end in ends.items()},
        y=[row.reward.mean] * 2,
        name=plain_text(row.method),
        mode="lines",
        line={"color": style.colour, "width": 2, "dash": style.dash},
        hovertemplate="%{y:.4g}",
    )


def trace(variants: dict[str, dict[str, Any]], **attributes: Any) -> go.Scatter:
    """A trace with its variants, drawn as the first of them."""
    plain = {
        name: {key: plain_list(values) for key, values in settings.items()}
        for name, settings in variants.items()
    }
    first = next(iter(plain.values()), {})
    drawn = {axis: first[axis] for axis in ("x", "y") if axis in first}
    return go.Scatter(**drawn, meta={"variants": plain}, **attributes)


def plain_list(values: Any) -> list[float | None]:
    """Numbers for a figure, None for what is missing or NaN."""
    # NaN is no JSON, and a gap is what a missing value should look like.
    return [None if value is None or value != value else float(value) for value in values]


def _half(interval: Interval) -> float | None:
    return None if interval.seeds < 2 else interval.half_width


def reward_title(run: Run, task: str) -> str:
    """Title of an axis of the reward ``task``, with its unit."""
    info = run.record.rewards.get(task)
    return plain_text(f"{task} ({info.unit})" if info and info.unit else task)


def plain_text(text: str) -> str:
    """Text that plotly shows as it is."""
    # Plotly reads a subset of HTML in every text.
    return html.escape(text, quote=False)


def laid_out(
    figure: go.Figure,
    axes: dict[str, dict[str, Any]],
    title: str,
    limits: tuple[float, float] | None,
) -> go.Figure:
    """The figure with what all have in common; ``title`` and ``limits`` are the vertical axis's."""
    axis = {"zeroline": False, "automargin": True, "ticks": "outside", "ticklen": 4}
    return figure.update_layout(
        template=None,
        height=430,
        margin={"l": 56, "r": 12, "t": 30, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis=axis,
        yaxis=axis | {"title": {"text": title}, "range": limits},
        # At the foot of the figure, whatever its height: measured from the plot it would lie over
        # the axis title once a narrow window has become wide again.
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        hoverlabel={"namelength": -1},
        meta={"axes": axes},
    )
