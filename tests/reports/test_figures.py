"""Charts and paper figures show the numbers of the analysis."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from reports import charts
from reports.figures import write_paper_figures
from reports.style import styles
from results import analysis, scores, store
from results.intervals import t_interval
from results.store import Run
from tests.results.synthetic import Synthetic


def test_the_scatter_shows_mean_and_interval_in_either_encoder(run: Run) -> None:
    figure = charts.scatter(run, "style")
    rows = {row.method: row for row in analysis.task_table(run, "style")}
    means = {trace.name: trace for trace in figure.data if trace.error_y.array is not None}
    assert set(means) == set(rows)
    for method, row in rows.items():
        assert means[method].y == (row.reward.mean,)
        for encoder, interval in row.diversity.items():
            variant = means[method].meta["variants"][encoder]
            assert variant["x"] == [interval.mean]
            if interval.seeds > 1:
                assert variant["error_x.array"] == [interval.half_width]


def test_curves_can_be_drawn_over_every_cost(run: Run) -> None:
    figure = charts.learning_curve(run, "style")
    dag = next(trace for trace in figure.data if trace.name == "dag")
    variants = dag.meta["variants"]
    assert variants["images"]["x"] == [0, 32, 64, 96, 128]
    assert variants["reward_calls"]["x"] == [0, 352, 704, 1056, 1408]
    assert variants["training_seconds"]["x"][0] == 0
    levels = {trace.name: trace.y for trace in figure.data if trace.name in ("base", "best-of-n")}
    rows = {row.method: row.reward.mean for row in analysis.task_table(run, "style")}
    assert levels == {name: (rows[name], rows[name]) for name in levels} and len(levels) == 2


def test_methods_differ_by_more_than_colour(run: Run) -> None:
    drawn = styles(run).values()
    assert len({each.colour for each in drawn}) == len(drawn)
    assert len({each.symbol for each in drawn}) == len(drawn)


def test_an_axis_holds_all_seeds_and_intervals_as_far_as_they_fit() -> None:
    narrow = [t_interval({0: 1.0, 1: 1.1, 2: 0.9}), t_interval({0: 3.0, 1: 3.1, 2: 2.9})]
    limits = charts.axis_range(narrow)
    assert limits is not None
    assert limits[0] < narrow[0].low and limits[1] > narrow[1].high
    wide = charts.axis_range([t_interval({0: 1.0, 1: 2.0}), t_interval({0: 2.0, 1: 3.0})])
    assert wide == pytest.approx([1.0 - 0.8, 3.0 + 0.8])
    assert charts.axis_range([t_interval({})]) is None
    single = charts.axis_range([t_interval({0: 0.5})])
    assert single is not None and single[0] < 0.5 < single[1]


def test_paper_figures_are_written_as_pdf_and_svg(run: Run, tmp_path: Path) -> None:
    paths = write_paper_figures(run, tmp_path / "figures")
    assert sorted(path.name for path in paths) == [
        *("learning_curves.pdf", "learning_curves.svg"),
        *("reward_diversity.pdf", "reward_diversity.svg"),
    ]
    for path in paths:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        else:
            root = ElementTree.parse(path).getroot()
            # Two columns of a paper in points.
            assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(2 * 3.3 * 72)
            texts = {text for text in map(str.strip, root.itertext()) if text}
            assert {"style", "colourfulness", *scores.methods(run)} <= texts
    again = write_paper_figures(run, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_paper_figures_need_a_cell_that_is_done(tmp_path: Path) -> None:
    store.write_json(tmp_path / "run.json", Synthetic(tmp_path).run_record(["dag--style--s0"]))
    with pytest.raises(ValueError, match="nothing to draw"):
        write_paper_figures(store.read_run(tmp_path), tmp_path)
