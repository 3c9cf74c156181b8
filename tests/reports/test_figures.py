"""Charts and paper figures show the numbers of the analysis."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports import charts, metric_views, summary_figures
from reports.figures import write_paper_figures
from reports.shown import ALL, shown
from reports.style import styles
from results import aggregates, analysis, distance, matched, numbers, scores, store
from results.intervals import t_interval
from results.store import Run
from tests.results.synthetic import Synthetic


def test_the_scatter_shows_mean_and_interval_in_either_encoder(run: Run) -> None:
    figure = charts.scatter(run, "style", shown(run, ALL))
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
    figure = charts.learning_curve(run, "style", shown(run, ALL))
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


FIGURES = (
    *("attainment", "cross_rewards", "interquartile_means", "learning_curves"),
    *("matched_diversity", "panel", "performance_profiles", "reward_diversity"),
)


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_paper_figures(run, tmp_path_factory.mktemp("figures"))


def texts(path: Path) -> set[str]:
    root = ElementTree.parse(path).getroot()
    return {text for text in map(str.strip, root.itertext()) if text}


def test_paper_figures_are_written_as_pdf_and_svg(run: Run, written: list[Path]) -> None:
    names = [f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "svg")]
    assert sorted(path.name for path in written) == names
    for path in written:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
            continue
        shown = texts(path)
        if path.stem in ("learning_curves", "reward_diversity", "matched_diversity", "panel"):
            root = ElementTree.parse(path).getroot()
            # Two columns of a paper in points.
            assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(2 * 3.3 * 72)
            assert {"style", "colourfulness"} <= shown
        drawn = set(scores.methods(run))
        if path.stem in ("performance_profiles", "matched_diversity"):
            drawn.discard("base")
        if path.stem in ("attainment", "interquartile_means", "performance_profiles"):
            drawn &= shown  # those with a complete seed, or a curve
            assert {"dag", "best-of-n"} <= drawn
        if path.stem == "panel":
            drawn = {row.method for row in distance.turn_rows(run, "style")}
        if path.stem != "cross_rewards":
            assert drawn <= shown


def test_the_same_run_gives_the_same_figures(run: Run, written: list[Path], tmp_path: Path) -> None:
    again = write_paper_figures(run, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_the_matrix_has_every_row_and_its_means(run: Run, written: list[Path]) -> None:
    shown = texts(next(path for path in written if path.name == "cross_rewards.svg"))
    for row in analysis.cross_rewards(run):
        assert (row.method if row.method == "base" else f"{row.method} on {row.task}") in shown
        for level in row.scores.values():
            assert numbers.number(level.mean) in shown


def test_the_colours_of_the_matrix_are_changes_in_units_of_the_spread(run: Run) -> None:
    rows = analysis.cross_rewards(run)
    found = metric_views.shifts(run, rows)
    base = [run.cells[f"base--none--s{seed}"].evaluations[-1].rewards["style"] for seed in (0, 1)]
    row = next(row for row in rows if (row.task, row.method) == ("style", "dag"))
    expected = row.changes["style"].mean / np.std(base)
    assert found["style", "dag", "style"] == pytest.approx(expected)


def test_levels_of_reward_and_means_are_drawn_where_they_are(run: Run) -> None:
    axes = Figure().subplots()
    summary_figures.draw_means(axes, run, "reward")
    rows = [row for row in aggregates.aggregate_table(run) if row.kind == "reward"]
    rows = [row for row in rows if row.blocks.seeds]
    places = [np.ravel(line.get_xdata())[0] for line in axes.lines if line.get_marker() != "|"]
    assert places == pytest.approx([row.value.mean for row in rows])
    axes = Figure().subplots()
    summary_figures.draw_matched(axes, run, "style", "scorer")
    expected = [
        at.value.mean
        for row in matched.trade_off_table(run, "style")
        if row.encoder == "scorer"
        for at in row.diversity_at.values()
        if at.reached
    ]
    heights = [np.ravel(line.get_ydata())[0] for line in axes.lines if line.get_marker() != "_"]
    assert heights == pytest.approx(expected) and len(expected) > 3


def test_the_panel_is_drawn_over_the_distance_with_a_ring_a_turn(run: Run) -> None:
    axes = Figure().subplots()
    summary_figures.draw_panel(axes, run, "style")
    expected, turns = {}, []
    for curves in distance.metric_curves(run, "style"):
        expected[curves.method] = [
            (point.distance, point.values[distance.PANEL].mean) for point in curves.means
        ]
        turns += [
            (curves.seeds[seed][at].distance, curves.seeds[seed][at].values[distance.PANEL])
            for seed, at in curves.turns.items()
            if at is not None
        ]
    means = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert {str(line.get_label()): line.get_xydata() for line in means} == {
        method: pytest.approx(np.array(points)) for method, points in expected.items()
    }
    rings = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert np.concatenate([line.get_xydata() for line in rings]) == pytest.approx(np.array(turns))
    assert len(turns) > 2


def test_one_reward_has_nothing_to_put_together(tmp_path: Path) -> None:
    one = store.read_run(Synthetic(tmp_path / "run", rewards=("style",)).write())
    names = {path.stem for path in write_paper_figures(one, tmp_path / "figures")}
    assert names == set(FIGURES) - {"interquartile_means", "performance_profiles", "panel"}


def test_paper_figures_need_a_cell_that_is_done(tmp_path: Path) -> None:
    store.write_json(tmp_path / "run.json", Synthetic(tmp_path).run_record(["dag--style--s0"]))
    with pytest.raises(ValueError, match="nothing to draw"):
        write_paper_figures(store.read_run(tmp_path), tmp_path)
