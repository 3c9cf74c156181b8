"""The sections on metrics and reward hacking show what the tables say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reports import metric_views
from reports.html import render
from reports.shown import first_limits, shown
from results import analysis, hacking, measuring, store
from results.store import Run
from tests.reports.page import Page
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_heat_is_the_change_in_spreads_of_base(run: Run) -> None:
    rows = analysis.cross_rewards(run)
    found = metric_views.heat(run, rows)
    assert not [key for key in found if key[1] == "base"]
    hot = found["style", "alignprop", "style"]
    assert hot.side == "up" and hot.percent == 100
    change = next(r for r in rows if (r.method, r.task) == ("dag", "style")).changes
    cold = found["style", "dag", "colourfulness"]
    assert cold.side == "down" and change["colourfulness"].mean < 0
    assert 0 < cold.percent <= 100


def test_the_matrix_is_coloured(parsed: Page) -> None:
    coloured = [cell for cell in parsed.find("td") if "heat" in cell.attributes.get("class", "")]
    assert coloured and all(cell.attributes["style"].startswith("--heat:") for cell in coloured)
    assert [item.text for item in parsed.find("li", data_unscored="background")] == [
        "Not scored by background: prompt 'a fox' asks for no background"
    ]


def test_base_comes_first_in_every_table_of_metrics(run: Run, page: str) -> None:
    tables = metric_views.metric_tables(run, shown(run, first_limits([run])))
    assert len(tables) == 2
    for table in tables:
        assert [method for method, _ in table.rows][0] == "base"
        assert table.heading == "In the features of"


def test_signs_are_those_of_the_analysis(run: Run, parsed: Page) -> None:
    rows = hacking.hacking_rows(run)
    for detector in hacking.detectors(run):
        cells = parsed.find("td", data_detector=detector.name)
        assert [int(cell.attributes["data-fires"]) for cell in cells] == [
            int(row.signs[detector.name].fires) for row in rows
        ]
        for cell, row in zip(cells, rows, strict=True):
            shown, mean = (
                float(cell.attributes["data-change"]),
                row.signs[detector.name].change.mean,
            )
            assert shown == mean or (math.isnan(shown) and math.isnan(mean))
    gains = [cell for cell in parsed.find("td") if "data-path-kl" in cell.attributes]
    assert [float(cell.attributes["data-path-kl"]) for cell in gains] == [
        row.path_kl.mean for row in rows
    ]


def test_metrics_are_shown_and_refusals_named(run: Run, parsed: Page) -> None:
    shown = [
        float(c.attributes["data-value"])
        for c in parsed.find("td", data_metric="kid")
        if "data-value" in c.attributes
    ]
    expected = [
        row.level.mean
        for encoder in ("efficientnet-lite0", "scorer")
        for row in measuring.measured_rows(run, "kid")
        if row.encoder == encoder and row.level.values
    ]
    assert sorted(shown) == sorted(expected) and shown
    (refusal,) = parsed.find("li", data_refused="fid")
    assert "fid needs at least 10,000 images" in refusal.text
    assert not parsed.find("td", data_metric="fid")


def test_bad_images_are_counted_by_evaluation(run: Run, parsed: Page) -> None:
    listed = [
        row.attributes["data-bad"] for row in parsed.find("tr") if "data-bad" in row.attributes
    ]
    assert listed == [r.cell_id for r in hacking.bad_images(run) if any(r.counts.values())]
    (section,) = parsed.find("section", id="hacking")
    assert "non-finite" in section.text and "black" in section.text


def test_a_run_without_measures_has_a_page(tmp_path: Path) -> None:
    record = Synthetic(tmp_path).run_record(["base--none--s0", "dag--style--s0"])
    store.write_json(tmp_path / "run.json", record)
    page = Page(render(store.read_run(tmp_path)))
    (section,) = page.find("section", id="metrics")
    assert "Nothing has been measured" in section.text
