"""The page's tables and figures of comparisons, trade-off and aggregates, arranged for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from reports.charts import axis_range, laid_out, plain_text, reward_title, trace
from reports.shown import Shown
from reports.style import Style, styles
from results import numbers, scores
from results.aggregates import AggregateRow, performance_profile, profile_band
from results.budgets import LEDGERS, EqualBudgetComparison, equal_budget_family
from results.comparisons import families
from results.intervals import Interval
from results.matched import TradeOffRow, attained, trade_off_table
from results.paired import Comparison
from results.store import Run

PROFILE_POINTS = 161


@dataclass(frozen=True)
class ComparisonTable:
    """The families of one training reward."""

    made: int
    """Comparisons of the reward that have a p-value."""
    groups: dict[str, list[tuple[Comparison, ...]]]
    """Reference to its rows: the comparison in the reward, then in each encoder's diversity."""
    equal_budget: list[EqualBudgetComparison]
    """At equal reward calls, then at equal UNet samples: a family each."""


def comparison_table(run: Run, task: str, shown: Shown) -> ComparisonTable:
    """All pairs of methods shown on ``task``, by the method they are against."""
    found = families(run, task)
    groups: dict[str, list[tuple[Comparison, ...]]] = {}
    for row in zip(*(family.comparisons for family in found), strict=True):
        if row[0].method in shown.methods and row[0].reference in shown.methods:
            groups.setdefault(row[0].reference, []).append(row)
    return ComparisonTable(
        made=found[0].made,
        groups=groups,
        equal_budget=[
            point
            for ledger in LEDGERS
            for point in equal_budget_family(run, task, ledger)
            if point.comparison.method in shown.methods
        ],
    )


@dataclass(frozen=True)
class MatchedGroup:
    """Rows of the trade-off table with diversity in one encoder."""

    encoder: str
    rows: list[TradeOffRow]
    diversity_places: int
    reward_places: int
    hypervolume_places: int


def matched_groups(run: Run, task: str, shown: Shown) -> list[MatchedGroup]:
    """The trade-off table of ``task`` by encoder."""
    groups: dict[str, list[TradeOffRow]] = {}
    for row in trade_off_table(run, task):
        if row.method not in shown.methods:
            continue
        groups.setdefault(row.encoder, []).append(row)
    return [
        MatchedGroup(
            encoder=encoder,
            rows=rows,
            diversity_places=_decimals(
                at.value for row in rows for at in row.diversity_at.values()
            ),
            reward_places=_decimals(at.value for row in rows for at in row.reward_at.values()),
            hypervolume_places=_decimals(row.hypervolume for row in rows),
        )
        for encoder, rows in groups.items()
    ]


def _decimals(intervals: Iterable[Interval]) -> int:
    # Of values between which readers tell differences: two at least.
    return max(2, numbers.column_decimals(intervals))


def corners(run: Run, task: str, shown: Shown) -> list[tuple[str, str, tuple[float, float]]]:
    """Encoder, method and corner (reward, diversity) of every attainment surface."""
    return [
        (encoder, method, (float(corner[0]), float(corner[1])))
        for encoder in scores.encoders(run)
        for method, surface in attained(run, task, encoder).items()
        if method in shown.methods
        for corner in surface
    ]


def attainment_figure(run: Run, task: str, shown: Shown) -> go.Figure:
    """Reward and diversity that half of the seeds attain, a step line a method."""
    figure = go.Figure()
    drawn = styles(run)
    surfaces = {encoder: attained(run, task, encoder) for encoder in scores.encoders(run)}
    for method in shown.methods:
        variants = {
            encoder: _corner_line(of_method[method])
            for encoder, of_method in surfaces.items()
            if method in of_method
        }
        if variants:
            figure.add_trace(_step_trace(method, drawn[method], variants))
    axes = {
        encoder: {
            "title": plain_text(f"Diversity ({encoder})"),
            "range": axis_range(_points(surface[:, 1] for surface in of_method.values())),
        }
        for encoder, of_method in surfaces.items()
    }
    every = (s[:, 0] for of_method in surfaces.values() for s in of_method.values())
    return laid_out(figure, axes, reward_title(run, task), axis_range(_points(every)))


def _points(columns: Iterable[np.ndarray]) -> list[Interval]:
    """Each column of values as an interval without ends, for the limits of an axis."""
    return [
        Interval(float(column[0]), np.nan, np.nan, dict(enumerate(map(float, column))))
        for column in columns
    ]


def _corner_line(surface: np.ndarray) -> dict[str, list[float]]:
    """Corners by rising diversity; the step of the line is set by its shape."""
    return {"x": surface[::-1, 1].tolist(), "y": surface[::-1, 0].tolist()}


def _step_trace(method: str, style: Style, variants: dict[str, dict[str, Any]]) -> go.Scatter:
    return trace(
        variants,
        name=plain_text(method),
        mode="lines+markers",
        # From corner to corner along the boundary of what lies below both.
        line={"color": style.colour, "width": 2, "dash": style.dash, "shape": "vh"},
        marker={"color": style.colour, "symbol": style.symbol, "size": 8},
        hovertemplate="reward %{y:.4g}, diversity %{x:.4g}",
    )


def measures(rows: list[AggregateRow]) -> dict[str, str]:
    """Key to label of what is put together over tasks: the reward, then each diversity."""
    labels = {"reward": "Normalised reward"}
    for row in rows:
        if row.kind == "diversity":
            labels[row.name] = f"Diversity, {row.name}"
    return labels


def measure_of(row: AggregateRow) -> str:
    """Its key in ``measures``."""
    return row.name or "reward"


@dataclass(frozen=True)
class AggregateColumns:
    """One method's aggregates, a column a measure."""

    rows: list[AggregateRow]
    places: list[int]


def aggregate_rows(rows: list[AggregateRow]) -> dict[str, AggregateColumns]:
    """Method to its aggregates in the order of ``measures``."""
    places = [
        _decimals(row.value for row in rows if measure_of(row) == measure)
        for measure in measures(rows)
    ]
    found: dict[str, list[AggregateRow]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return {method: AggregateColumns(columns, places) for method, columns in found.items()}


def profile_figure(run: Run, rows: list[AggregateRow]) -> go.Figure:
    """Performance profiles of all methods but base, which defines the scale."""
    figure = go.Figure()
    drawn = styles(run)
    shown = [row for row in rows if row.blocks.seeds and row.method != scores.BASE]
    limits = {measure: thresholds(shown, measure) for measure in measures(rows)}
    for method in dict.fromkeys(row.method for row in shown):
        of_method = [row for row in shown if row.method == method]
        variants = {measure_of(row): _profile(row, limits[measure_of(row)]) for row in of_method}
        figure.add_traces(_profile_traces(method, drawn[method], variants))
    axes: dict[str, dict[str, Any]] = {
        measure: {"title": plain_text(label), "range": None}
        for measure, label in measures(rows).items()
    }
    return laid_out(figure, axes, "Share of runs above", (-0.03, 1.03))


def thresholds(rows: list[AggregateRow], measure: str) -> np.ndarray:
    """Scores ``[points]`` at which profiles of ``measure`` are drawn, beyond all there are."""
    values = [
        value for row in rows if measure_of(row) == measure for value in row.blocks.scores.ravel()
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * ((high - low) or 1.0)
    return np.linspace(low - margin, high + margin, PROFILE_POINTS)


def _profile(row: AggregateRow, limits: np.ndarray) -> dict[str, list[float]]:
    low, high = profile_band(row.blocks.scores, limits)
    share = performance_profile(row.blocks.scores, limits)
    columns = {"x": limits, "y": share, "low": low, "high": high}
    return {name: [round(float(value), 6) for value in each] for name, each in columns.items()}


def _profile_traces(
    method: str, style: Style, variants: dict[str, dict[str, list[float]]]
) -> list[go.Scatter]:
    red, green, blue = (int(style.colour[i : i + 2], 16) for i in (1, 3, 5))
    common: dict[str, Any] = {"legendgroup": method, "mode": "lines"}
    edge = common | {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0}}

    def line(name: str) -> dict[str, dict[str, Any]]:
        return {key: {"x": each["x"], "y": each[name]} for key, each in variants.items()}

    return [
        trace(line("high"), **edge),
        trace(line("low"), fill="tonexty", fillcolor=f"rgba({red},{green},{blue},0.08)", **edge),
        trace(
            line("y"),
            name=plain_text(method),
            line={"color": style.colour, "width": 2.5, "dash": style.dash},
            hovertemplate="%{y:.2f} above %{x:.3g}",
            **common,
        ),
    ]
