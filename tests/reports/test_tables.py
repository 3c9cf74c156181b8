"""Tables for other programs and for papers hold the numbers of the analysis."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import pytest

from reports import tables
from reports.table_formats import Table
from reports.tables import write_tables
from results import (
    analysis,
    budgets,
    comparisons,
    differences,
    distance,
    hacking,
    numbers,
    picks,
    samplers,
    scores,
)
from results.intervals import t_interval
from results.store import Run, read_run
from tests.results.synthetic import Synthetic


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    write_tables(run, out)
    return out


def test_every_table_is_written_three_times(folder: Path, run: Run) -> None:
    names = [table.name for table in tables.tables(run)]
    assert {"coverage", "scores", "comparisons", "cross_rewards", "cost"} < set(names)
    expected = {f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")}
    assert {path.name for path in folder.iterdir()} == expected


def test_csv_has_the_numbers_in_full(folder: Path, run: Run) -> None:
    rows = {(row["trained on"], row["method"]): row for row in read(folder / "scores.csv")}
    for task in scores.tasks(run):
        for row in analysis.task_table(run, task):
            written = rows[task, row.method]
            if not row.done:
                assert written["reward"] == "" and written["tier"] == ""
                continue
            assert float(written["reward"]) == row.reward.mean
            assert written["tier"] == str(row.tier or "")
            if row.reward.seeds > 1:
                assert float(written["reward low"]) == row.reward.low
            if row.gain is not None:
                assert float(written["change"]) == row.gain.difference.mean
    assert len(rows) == 2 * len(scores.methods(run))


def test_every_comparison_is_in_the_table(folder: Path, run: Run) -> None:
    rows = read(folder / "comparisons.csv")
    made = sum(
        len(family.comparisons)
        for task in scores.tasks(run)
        for family in comparisons.families(run, task)
    )
    made += sum(
        len(budgets.equal_budget_family(run, task, ledger))
        for task in scores.tasks(run)
        for ledger in budgets.LEDGERS
    )
    assert len(rows) == made


def test_every_cell_is_in_the_table_with_its_state(folder: Path, run: Run) -> None:
    states = {row["cell"]: row["state"] for row in read(folder / "coverage.csv")}
    assert states == {name: cell.status.state for name, cell in run.cells.items()}


def test_markdown_and_latex_show_means_with_intervals(folder: Path, run: Run) -> None:
    dag = next(row for row in analysis.task_table(run, "style") if row.method == "dag")
    text = (folder / "scores.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| style | dag |")]
    assert re.search(r"0\.\d+ \[0\.\d+, 0\.\d+\]", line)
    assert numbers.mean(dag.reward, 2)[:4] in line
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    latex = (folder / "scores.tex").read_text(encoding="utf-8")
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == 2 * len(scores.methods(run))
    assert all(line.endswith(r" \\") for line in body)
    assert {line.count(" & ") for line in body} == {len(tables.tables(run)[1].columns) - 1}


def test_what_the_page_lists_in_detail_is_in_tables_too(folder: Path, run: Run) -> None:
    targets = {
        (row["trained on"], row["method"], row["cost"], row["share of the gain"], row["seed"]): row
        for row in read(folder / "targets.csv")
    }
    expected = {
        (task, each.method, each.cost.replace("_", " "), str(each.share), str(seed)): value
        for task in scores.tasks(run)
        for each in budgets.to_target_table(run, task)
        for seed, value in each.values.items()
    }
    assert {key: float(row["spent"]) for key, row in targets.items()} == expected
    assert expected
    signs = {
        (row["trained on"], row["method"], row["detector"]): row
        for row in read(folder / "hacking.csv")
    }
    for row in hacking.hacking_rows(run):
        for name, sign in row.signs.items():
            written = signs[row.task, row.method, name]
            assert written["fires"] == ("yes" if sign.fires else "no")
            if sign.change.seeds:
                assert float(written["change"]) == sign.change.mean
    bad = {row["cell"] for row in read(folder / "bad_images.csv") if row["constant"] == "1"}
    assert bad == {row.cell_id for row in hacking.bad_images(run) if row.counts["constant"]}
    assert {"attainment.csv", "equal_budgets.csv"} <= {path.name for path in folder.iterdir()}


def test_turns_of_the_panel_and_every_metric_by_distance_are_in_tables(
    folder: Path, run: Run
) -> None:
    turns = {(row["trained on"], row["method"]): row for row in read(folder / "turns.csv")}
    expected = [row for task in scores.tasks(run) for row in distance.turn_rows(run, task)]
    assert list(turns) == [(row.task, row.method) for row in expected]
    for row in expected:
        written = turns[row.task, row.method]
        assert (int(written["seeds"]), int(written["that turn"])) == (row.seeds, row.turned)
        assert float(written["panel at the end"]) == row.end.mean
        assert written["panel of"] == ", ".join(row.rewards) != ""
        if row.turned:
            assert float(written["distance there"]) == row.distance.mean
            assert float(written["images there"]) == row.images.mean
            assert float(written["gain there"]) == row.gain.mean
            assert float(written["panel there"]) == row.panel.mean
    points = read(folder / "by_distance.csv")
    assert sum(row["turn"] == "yes" for row in points) == sum(row.turned for row in expected) > 0
    (last,) = [
        row
        for row in points
        if (row["trained on"], row["method"], row["seed"], row["images"])
        == ("style", "dag", "1", "128")
    ]
    curves = next(each for each in distance.metric_curves(run, "style") if each.method == "dag")
    point = curves.seeds[1][-1]
    assert float(last["distance"]) == point.distance == math.sqrt(3.1)
    assert set(distance.metrics(run)) < last.keys()
    known = {name: value for name, value in point.values.items() if math.isfinite(value)}
    assert {name: float(last[name]) for name in distance.metrics(run) if last[name]} == known


def test_picked_checkpoints_and_samplers_are_in_tables(tmp_path: Path) -> None:
    validated = read_run(Synthetic(tmp_path / "run", validated=True).write())
    names = {table.name: table for table in tables.tables(validated)}
    assert len(names["samplers"].rows) == sum(
        len(samplers.sampler_table(validated, task)) for task in scores.tasks(validated)
    )
    picked = [row for row in names["checkpoints"].rows if row[-1] == "yes"]
    assert len(picked) == len(picks.picks(validated))
    assert "exact_metrics" not in names


def test_the_setup_of_a_run_is_in_tables(folder: Path, run: Run) -> None:
    started = {name for name, cell in run.cells.items() if cell.config}
    rows = {row["cell"]: row for row in read(folder / "reproduction.csv")}
    assert rows.keys() == run.cells.keys()
    assert {name for name, row in rows.items() if row["key"]} == started
    assert all(row["command"] for row in rows.values())
    protocol = {row["property"]: row["value"] for row in read(folder / "protocol.csv")}
    assert protocol["protocol"] == run.record.protocol
    where = read(folder / "environment.csv")
    for each in differences.environments(run.cells.values()):
        written = {row["value"]: int(row["cells"]) for row in where if row["property"] == each.name}
        assert written == {value: len(cells) for value, cells in each.values.items()}
    assert {row["method"] for row in read(folder / "methods.csv")} == run.record.methods.keys()
    assert {row["reward"] for row in read(folder / "rewards.csv")} == run.record.rewards.keys()


def test_settings_that_differ_are_in_a_table(tmp_path: Path) -> None:
    run = read_run(Synthetic(tmp_path / "run").write())
    assert "settings" not in {table.name for table in tables.tables(run)}
    cell = next(cell for cell in run.cells.values() if cell.config)
    assert cell.config is not None
    changed = cell.config.model_copy(update={"budget_images": 1})
    cells = {**run.cells, cell.cell_id: dataclasses.replace(cell, config=changed)}
    table = next(
        t for t in tables.tables(dataclasses.replace(run, cells=cells)) if t.name == "settings"
    )
    assert ["budget_images", "1", 1, cell.cell_id] in table.rows


def test_text_is_escaped_for_each_format() -> None:
    hostile = "a|b & 50% $x_1$ #{~^}\\ <i>`*`\nnext [l](u)"
    table = Table("t", hostile, ["name", "value"], [[hostile, t_interval({0: -1.0, 1: -1.5})]])
    markdown = table.markdown().splitlines()
    assert len(markdown) == 5
    assert len(re.findall(r"(?<!\\)\|", markdown[-1])) == 3
    assert r"\<i\>\`\*\`" in markdown[-1] and r"\[l\](u)" in markdown[-1]
    latex = table.latex()
    assert r"a$|$b \& 50\% \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\}" in latex
    assert r"\textbackslash{} $<$i$>$" in latex and "$-$1.2" in latex
    missed = Table("t", "", ["spent"], [[math.inf]])
    assert "∞" in missed.markdown() and r"$\infty$" in missed.latex()
    assert missed.csv() == "spent\ninf\n"
    ((name, value, low, high),) = csv.reader(table.csv().split("value high\n")[1].splitlines(True))
    assert name == hostile and float(value) == -1.25 and float(low) < -1.25 < float(high)
