"""Comparisons, trade-off and aggregates on the page are those of the analysis."""

from __future__ import annotations

import json

import pytest

from reports import statistics
from reports.shown import ALL, shown
from results import aggregates, budgets, comparisons, matched, numbers, scores
from results.store import Run
from tests.reports.page import Page


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_every_comparison_is_shown_with_its_adjusted_p(run: Run, parsed: Page) -> None:
    rows = {
        (row.attributes["data-method"], row.attributes["data-against"], i): row
        for i, table in enumerate(parsed.find("table", class_="comparisons"))
        for row in parsed.find("tr")
        if table in row.parents and "data-against" in row.attributes
    }
    count = 0
    for i, task in enumerate(scores.tasks(run)):
        for each in comparisons.family(run, task, "reward", task).comparisons:
            text = rows[each.method, each.reference, i].text
            assert numbers.p_value(each.p_adjusted) in text
            assert numbers.share(each.improvement) in text
            partial = f"partial ({each.difference.seeds} of {each.planned})"
            assert (partial in text) == each.partial
            count += 1
        for ledger, name in budgets.LEDGERS.items():
            for point in budgets.equal_budget_family(run, task, ledger):
                row = rows[point.comparison.method, f"best-of-n at equal {name}", i]
                assert numbers.p_value(point.comparison.p_adjusted) in row.text
                count += 1
    assert count == len(rows) == 10 + 2 * 3 + 6 + 2 * 2


def test_matched_values_and_hypervolumes_are_those_of_the_analysis(run: Run, parsed: Page) -> None:
    shown = [e for e in parsed.find("td") if "data-share" in e.attributes]
    expected = [
        (share, row.diversity_at[share])
        for task in scores.tasks(run)
        for row in matched.trade_off_table(run, task)
        for share in matched.REWARD_LEVELS
    ]
    assert len(shown) == len(expected) > 0
    for cell, (share, at) in zip(shown, expected, strict=True):
        assert float(cell.attributes["data-share"]) == share
        if at.reached:
            assert float(cell.attributes["data-value"]) == at.value.mean
        assert ("seeds reach it" in cell.text) == (0 < at.reached < at.seeds)
        assert ("never reaches it" in cell.text) == (at.seeds > 0 and at.reached == 0)
    areas = [
        float(e.attributes["data-hypervolume"])
        for e in parsed.find("td")
        if "data-hypervolume" in e.attributes
    ]
    assert areas == [
        row.hypervolume.mean
        for task in scores.tasks(run)
        for row in matched.trade_off_table(run, task)
    ]


def test_aggregates_say_where_blocks_are_missing(run: Run, parsed: Page) -> None:
    rows = [row for row in parsed.find("tr") if row.inside("table", **{"class": "aggregates"})]
    by_method = {row.attributes["data-method"]: row.text for row in rows[1:]}
    assert "partial (1 of 2)" in by_method["ddpo"]
    assert "partial (0 of 2)" in by_method["alignprop"]
    assert "nothing on colourfulness" in by_method["alignprop"]
    assert "partial" not in by_method["dag"]


def test_the_attainment_line_has_the_corners_in_either_encoder(run: Run) -> None:
    figure = statistics.attainment_figure(run, "style", shown(run, ALL))
    dag = next(trace for trace in figure.data if trace.name == "dag")
    for encoder in scores.encoders(run):
        surface = matched.attained(run, "style", encoder)["dag"]
        variant = dag.meta["variants"][encoder]
        assert sorted(variant["x"]) == variant["x"]
        assert sorted(zip(variant["y"], variant["x"], strict=True)) == [
            (reward, diversity) for reward, diversity in surface.tolist()
        ]


def test_a_profile_falls_from_one_to_none_within_its_band(run: Run) -> None:
    rows = aggregates.aggregate_table(run)
    figure = statistics.profile_figure(run, rows)
    # Three lines for each method with a complete seed; base defines the scale and has none.
    assert len(figure.data) == 3 * len(["best-of-n", "dag", "ddpo"])
    high, low, line = figure.data[3:6]
    assert line.name == "dag"
    for measure in statistics.measures(rows):
        shares = line.meta["variants"][measure]["y"]
        assert shares[0] == 1 and shares[-1] == 0 and sorted(shares, reverse=True) == shares
        below = low.meta["variants"][measure]["y"]
        above = high.meta["variants"][measure]["y"]
        assert all(a <= b <= c for a, b, c in zip(below, shares, above, strict=True))
    json.dumps(figure.to_plotly_json(), allow_nan=False, default=list)
