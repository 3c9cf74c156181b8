"""Metrics over the distance from base and turns of the panel, as the page shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from reports import panel_views
from reports.html import render
from reports.shown import ALL, Limits, shown
from results import distance, records, store
from results.distance import PANEL
from results.store import Run
from tests.reports.page import Page
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="module")
def figure(run: Run) -> go.Figure:
    every = shown(run, ALL)
    return panel_views.figure(run, "style", every, panel_views.shown_metrics(run, every))


def named(figure: go.Figure, mode: str) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.mode == mode and trace.name}


def test_every_metric_is_drawn_over_the_distance(run: Run, figure: go.Figure) -> None:
    means = named(figure, "lines+markers")
    every = distance.metric_curves(run, "style")
    assert list(means) == [curves.method for curves in every]
    for curves in every:
        trace, points = means[curves.method], curves.means
        assert trace.x == pytest.approx([point.distance for point in points], rel=1e-4)
        assert list(trace.meta["variants"]) == panel_views.shown_metrics(run, shown(run, ALL))
        for name, variant in trace.meta["variants"].items():
            expected = [point.values[name].mean for point in points]
            heights = [math.nan if y is None else y for y in variant["y"]]
            assert heights == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert figure.layout.yaxis.title.text.startswith("Panel")
    assert figure.layout.xaxis.title.text == "Distance from base (root of path KL)"
    axes = figure.layout.meta["axes"]
    assert axes["reward: colourfulness"]["title"] == "colourfulness (probability)"
    assert {axis["along"] for axis in axes.values()} == {"y"}


def test_the_turn_of_each_seed_is_ringed_in_every_metric(run: Run, figure: go.Figure) -> None:
    rings = named(figure, "markers")
    turned = 0
    for curves in distance.metric_curves(run, "style"):
        found = {seed: at for seed, at in curves.turns.items() if at is not None}
        ring = rings[curves.method]
        assert ring.marker.symbol == "circle-open"
        points = [curves.seeds[seed][at] for seed, at in found.items()]
        assert ring.x == pytest.approx([point.distance for point in points], rel=1e-4)
        for name in (PANEL, "reward: style", "saturation"):
            heights = [point.values[name] for point in points]
            assert ring.meta["variants"][name]["y"] == pytest.approx(heights, rel=1e-4)
        for (seed, at), text in zip(found.items(), ring.text, strict=True):
            assert text.startswith(f"seed {seed}: panel ")
            point = curves.seeds[seed][at]
            said = f"after {point.images} images" if at else "falls from the start"
            assert said in text
        turned += len(found)
    assert turned > 0


def rows(page: Page, task: str) -> Iterator[tuple[str, str, list[float]]]:
    for row in page.find("tr"):
        if row.inside("tbody", **{"data-turns": task}) and "data-method" in row.attributes:
            cells = [cell for cell in page.find("td") if row in cell.parents]
            (turned,) = [cell.text for cell in cells if "data-turned" in cell.attributes]
            values = [c.attributes["data-value"] for c in cells if "data-value" in c.attributes]
            yield row.attributes["data-method"], turned, list(map(float, values))


def test_the_page_has_the_turns_and_a_choice_of_metric(run: Run, page: str) -> None:
    parsed = Page(page)
    for task in ("style", "colourfulness"):
        found = list(rows(parsed, task))
        expected = distance.turn_rows(run, task)
        assert [method for method, _, _ in found] == [row.method for row in expected]
        for (_, turned, values), row in zip(found, expected, strict=True):
            levels = (row.distance, row.gain, row.panel, row.end)
            assert values == pytest.approx([level.mean for level in levels], nan_ok=True)
            said = f"{row.turned} of {row.seeds}" if row.turned else "no turn yet"
            assert turned.startswith(said)
    options = [each for each in parsed.find("option") if each.inside("select", name="metric")]
    names = [each.attributes["value"] for each in options]
    # Too few pictures for these: a metric without a value is not offered.
    refused = ("near-duplicates", "Fréchet distance")
    assert names == [name for name in distance.metrics(run) if not name.startswith(refused)]
    assert {PANEL, "reward: style", "saturation", "recall of base, scorer"} < set(names)
    labels = {each.attributes["value"]: each.text for each in options}
    assert labels["reward: colourfulness"] == "reward: colourfulness, prompt fidelity"
    assert labels["reward: style"] == "reward: style"


def test_a_run_without_path_kl_is_drawn_over_images(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    for path in folder.glob("cells/*/evaluations.jsonl"):
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        for record in evaluations:
            record.path_kl.clear()
            record.image_statistics.clear()
            record.augmented.clear()
        store.write_jsonl(path, evaluations)
    run = store.read_run(folder)
    metrics = panel_views.shown_metrics(run, shown(run, ALL))
    figure = panel_views.figure(run, "style", shown(run, ALL), metrics)
    assert named(figure, "lines+markers")["dag"].x == (0, 32, 64, 96, 128)
    assert figure.layout.xaxis.title.text == "Training images"
    page = Page(render(run))
    for script in page.find("script", type="application/json"):
        json.loads(script.text, parse_constant=lambda name: pytest.fail(name))
    expected = distance.turn_rows(run, "style")
    for (_, _, values), row in zip(rows(page, "style"), expected, strict=True):
        assert math.isnan(values[0]) == (row.turned == 0 or row.from_start < row.turned)
    assert not [each for each in page.find("option") if each.text == "saturation"]


def test_one_reward_has_figures_and_says_that_it_has_no_panel(tmp_path: Path) -> None:
    page = Page(render(store.read_run(Synthetic(tmp_path, rewards=("style",)).write())))
    (body,) = page.find("tbody", data_turns="style")
    assert "no other reward scores every cell" in body.text
    assert page.find("div", data_source="distance-1")
    options = [each.text for each in page.find("option") if each.inside("select", name="metric")]
    assert options[0] == "reward: style" and PANEL not in options


def test_of_a_large_run_the_panel_and_the_rewards_shown_are_drawn(run: Run) -> None:
    limits = Limits(tasks=1, methods=10, seeds=1, cells=5)
    part = shown(run, limits)
    metrics = panel_views.shown_metrics(run, part)
    assert metrics == [PANEL, "reward: style"]
    figure = panel_views.figure(run, "style", part, metrics)
    rings = named(figure, "markers").values()
    assert all("seed 1" not in text for ring in rings for text in ring.text)
