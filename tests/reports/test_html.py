"""The report: whole, offline, escaped, and with the numbers of the analysis."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reports import html
from reports.html import render, write_report
from results import analysis, records, reproduction, scores, store, verdict
from results.store import ResultsError, Run
from tests.reports.page import Element, Page
from tests.results.synthetic import Synthetic

SECTIONS = [
    *("findings", "coverage", "scatter", "scores", "comparisons", "curves"),
    *("budgets", "trade-off"),
    *("aggregates", "cross", "hacking", "metrics", "cost", "pictures", "protocol", "setup"),
    "reproduction",
]


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_it_is_written_beside_the_run_or_where_asked(run: Run, page: str, tmp_path: Path) -> None:
    assert (run.folder / "report.html").is_file()
    out = tmp_path / "new" / "page.html"
    assert write_report(run.folder, out) == out
    assert out.read_text(encoding="utf-8") == page


def test_all_sections_are_there_in_order_and_reachable(parsed: Page) -> None:
    assert [section.attributes["id"] for section in parsed.find("section")] == SECTIONS
    links = [link.attributes["href"] for link in parsed.find("a") if link.inside("nav")]
    assert links == [f"#{name}" for name in SECTIONS]
    ids = [element.attributes["id"] for element in parsed.elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)


def test_it_loads_nothing(page: str, parsed: Page) -> None:
    allowed = ("data:", "#")
    for element in parsed.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            value = element.attributes.get(name, "#")
            assert value.startswith(allowed), f"<{element.tag} {name}={value[:60]}>"
        assert element.tag not in ("iframe", "object", "embed", "base")
    (style,) = parsed.find("style")
    assert "url(" not in style.text and "@import" not in style.text
    own_script = parsed.find("script")[-1].text
    assert "http" not in own_script and "fetch(" not in own_script


def test_it_states_verdict_and_coverage(run: Run, parsed: Page) -> None:
    (lead,) = parsed.find("p", id="verdict")
    assert lead.text == verdict.headline(run)
    assert any(verdict.coverage_sentence(run) in p.text for p in parsed.find("p"))


def test_the_coverage_matrix_has_every_cell_in_its_state(run: Run, parsed: Page) -> None:
    chips = [e for e in parsed.elements if "data-cell" in e.attributes]
    states = {chip.attributes["data-cell"]: chip.attributes["data-state"] for chip in chips}
    assert states == {cell_id: cell.status.state for cell_id, cell in run.cells.items()}
    (section,) = parsed.find("section", id="coverage")
    assert "needs a reward gradient; colourfulness has none" in section.text


def rows_of(parsed: Page, task: str) -> dict[str, list[Element]]:
    cells = [cell for cell in parsed.find("td") if cell.inside("table", **{"data-task": task})]
    rows: dict[str, list[Element]] = {}
    for cell in cells:
        rows.setdefault(cell.parents[-1].attributes["data-method"], []).append(cell)
    return rows


@pytest.mark.parametrize("task", ["style", "colourfulness"])
def test_the_numbers_of_the_scores_are_those_of_the_analysis(
    run: Run, parsed: Page, task: str
) -> None:
    rows = rows_of(parsed, task)
    table = analysis.task_table(run, task)
    assert list(rows) == [row.method for row in table] == scores.methods(run)
    for row in table:
        cells = rows[row.method]
        if not row.done:
            assert cells[0].text == "Not applicable: " + row.reason
            continue
        reward = cells[0].attributes
        assert float(reward["data-value"]) == row.reward.mean
        if row.reward.seeds > 1:
            assert float(reward["data-low"]) == row.reward.low
            assert float(reward["data-high"]) == row.reward.high
        if row.gain is not None:
            assert float(cells[2].attributes["data-gain"]) == row.gain.difference.mean
        assert cells[1].text.startswith(str(row.tier) if row.tier else "–")
        diversity = {
            cell.attributes["data-encoder"]: float(cell.attributes["data-value"])
            for cell in cells
            if "data-encoder" in cell.attributes
        }
        assert diversity == {name: level.mean for name, level in row.diversity.items()}
        assert f"{row.done} of {row.cells}" in cells[-1].text


def test_single_values_stand_beside_the_interval_of_few_seeds(parsed: Page) -> None:
    cell = rows_of(parsed, "style")["dag"][0]
    assert re.search(r"\d \[|\[0\.\d+, 0\.\d+\]", cell.text)
    assert re.search(r"0\.\d+ · 0\.\d+", cell.text)


def test_every_cell_is_scored_by_every_reward(run: Run, parsed: Page) -> None:
    shown = {
        (
            cell.parents[-1].attributes["data-task"],
            cell.parents[-1].attributes["data-method"],
            cell.attributes["data-reward"],
        ): float(cell.attributes["data-value"])
        for cell in parsed.find("td")
        if "data-reward" in cell.attributes
    }
    expected = {
        (row.task, row.method, name): interval.mean
        for row in analysis.cross_rewards(run)
        for name, interval in row.scores.items()
    }
    assert shown == expected


def test_every_figure_has_its_table_and_valid_data(parsed: Page) -> None:
    figures = parsed.find("figure", class_="card")
    assert len(figures) == 9
    data = parsed.find("script", type="application/json")
    assert len(data) == 9
    for script in data:
        figure = json.loads(script.text)
        assert figure["data"] and figure["layout"]["meta"]["axes"]
    assert len([s for s in parsed.find("summary") if s.text == "Table of this figure"]) == 9


def test_pictures_have_a_row_a_prompt_and_a_column_a_method(run: Run, parsed: Page) -> None:
    panels = [
        panel for panel in parsed.find("div", role="region") if "data-seed" in panel.attributes
    ]
    assert [(p.attributes["data-task"], p.attributes["data-seed"]) for p in panels] == [
        (task, seed) for task in ("style", "colourfulness") for seed in ("0", "1")
    ]
    config = run.cells["dag--style--s0"].config
    assert config is not None
    first = {"data-task": "style", "data-seed": "0"}
    prompts = [p.text for p in parsed.find("span", class_="prompt") if p.inside("div", **first)]
    assert prompts == config.evaluation_prompts
    pictures = [image for image in parsed.find("img") if image.inside("div", **first)]
    assert len(pictures) == (4 * 4 + 5) * len(scores.methods(run))
    assert all(image.attributes["src"].startswith("data:image/webp") for image in pictures)
    assert all(image.attributes["alt"] for image in pictures)


def test_failures_keep_their_traceback_folded(parsed: Page) -> None:
    (details,) = parsed.find("details", id="ddpo--style--s1")
    assert "open" not in details.attributes
    assert "Traceback (most recent call last)" in details.text
    assert details.inside("section", id="coverage")
    assert parsed.find("a", href="#ddpo--style--s1")


def test_every_cell_says_how_to_reproduce_it(run: Run, parsed: Page) -> None:
    (section,) = parsed.find("section", id="reproduction")
    summaries = [s.text for s in parsed.find("summary") if s.inside("section", id="reproduction")]
    keys = {
        e.attributes["data-key"]: e.text for e in parsed.find("code") if "data-key" in e.attributes
    }
    for (cell_id, cell), summary in zip(run.cells.items(), summaries, strict=True):
        assert summary.startswith(cell_id)
        assert (cell_id in keys) == (cell.config is not None)
        if cell.config is not None:
            assert keys[cell_id] == reproduction.key(cell)
    start = "python -m benchmark run --suite synthetic"
    assert f"{start} --methods dag --seeds 1 --rewards style" in section.text
    (setup,) = parsed.find("section", id="setup")
    assert "2.15.0" in setup.text and "0123456789ab" in setup.text
    assert "All cells that ran had the same environment" in setup.text


def test_cells_of_other_environments_are_named(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.cell_folder(folder, "dag--style--s1") / "environment.json"
    environment = store.read_json(path, records.Environment)
    store.write_json(path, environment.model_copy(update={"cpu": "another processor"}))
    page = Page(render(store.read_run(folder)))
    values = [c for c in page.find("td") if c.attributes.get("data-property") == "cpu"]
    assert {value.text for value in values} == {"a processor", "another processor"}
    other = next(value for value in values if value.text == "another processor")
    row = other.parents[-1]
    assert "dag--style--s1" in row.text and "1 cell" in row.text


def test_every_point_of_the_scatter_has_a_button(run: Run, parsed: Page) -> None:
    buttons = {
        (figure.attributes["data-figure"], b.attributes["data-method"], b.attributes["data-seed"])
        for b in parsed.find("button", type="button")
        for figure in b.parents
        if "data-figure" in figure.attributes
    }
    assert buttons == {
        (task, row.method, str(seed))
        for task in scores.tasks(run)
        for row in analysis.task_table(run, task)
        for seed in row.reward.values
    }


def test_a_page_keeps_to_its_size(run: Run, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(page.encode()) < html.PAGE_BYTES
    limit = len(page.encode()) - 100_000
    monkeypatch.setattr(html, "PAGE_BYTES", limit)
    small = render(run)
    assert len(small.encode()) <= limit and "data:image/webp" in small


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "\"quotes' & <b>markup</b> {{ 7 * 7 }} {% raw %}",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "x" * 10_000,
)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, prompts=HOSTILE).write()
    status = store.cell_folder(folder, "ddpo--style--s1") / "status.json"
    failed = store.read_json(status, records.StatusRecord)
    store.write_json(status, failed.model_copy(update={"reason": HOSTILE[0]}))
    text = (folder / "run.json").read_text().replace("drawn at random", "<i>&</i></script>")
    (folder / "run.json").write_text(text)
    clean = Page(render(store.read_run(folder)))
    scripts = [script.text for script in clean.find("script")]
    assert len(scripts) == 11 and not any("alert(" in script for script in scripts)
    assert not [image for image in clean.find("img") if "onerror" in image.attributes]
    assert not clean.find("i")
    prompts = [p.text for p in clean.find("span", class_="prompt")]
    assert prompts[:4] == list(HOSTILE)
    assert all(p.attributes["dir"] == "auto" for p in clean.find("span", class_="prompt"))


def test_hostile_names_in_figures_do_not_end_the_script(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = folder / "run.json"
    path.write_text(path.read_text().replace('"probability"', '"</script><b>&"'))
    parsed = Page(render(store.read_run(folder)))
    for script in parsed.find("script", type="application/json"):
        title = json.loads(script.text)["layout"]["yaxis"]["title"]["text"]
        if title not in ("Share of runs above", "Panel, change in standard deviations"):
            assert title.endswith("(&lt;/script&gt;&lt;b&gt;&amp;)")


def test_an_unfinished_run_has_a_report(tmp_path: Path) -> None:
    run_record = Synthetic(tmp_path).run_record(["base--none--s0", "dag--style--s0"])
    store.write_json(tmp_path / "run.json", run_record)
    parsed = Page(render(store.read_run(tmp_path)))
    (lead,) = parsed.find("p", id="verdict")
    assert "nothing to compare yet" in lead.text
    assert not parsed.find("h3", id="failed")


def test_a_value_that_is_not_finite_leaves_a_valid_page(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.cell_folder(folder, "dag--style--s0") / "evaluations.jsonl"
    evaluations = store.read_jsonl(path, records.EvaluationRecord)
    evaluations[-1].rewards["style"][0][0] = float("nan")
    evaluations[-1].diversity["scorer"][0] = float("nan")
    store.write_jsonl(path, evaluations)
    parsed = Page(render(store.read_run(folder)))
    for script in parsed.find("script", type="application/json"):
        json.loads(script.text, parse_constant=lambda name: pytest.fail(name))


def test_a_run_without_cells_is_nothing_to_report(tmp_path: Path) -> None:
    store.write_json(tmp_path / "run.json", Synthetic(tmp_path).run_record([]))
    with pytest.raises(ResultsError, match="no cells"):
        write_report(tmp_path)


def test_cost_shows_phases_networks_and_energy(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path / "run").write()
    path = store.cell_folder(folder, "dag--style--s0") / "status.json"
    status = store.read_json(path, records.StatusRecord)
    phases = {"setup": 1.0, "sample": 3.0, "backward": 4.0, "other": 1.0, "evaluation": 2.0}
    update = {
        "seconds_by_phase": phases,
        "training_seconds_by_phase": {"sample": 3.0, "backward": 4.0, "other": 1.0},
        "network_seconds": {"unet": 5.0},
        "joules": 1234.0,
        "peak_gpu_allocated_bytes": 3 * 2**30,
        "peak_gpu_reserved_bytes": 4 * 2**30,
    }
    other = store.cell_folder(folder, "dag--style--s1") / "status.json"
    for each in (path, other):
        store.write_json(each, status.model_copy(update=update))
    page = Page(render(store.read_run(folder)))
    table = next(table for table in page.find("table") if "Time and memory" in table.text)
    rows = [row for row in page.elements if row.tag == "tr" and table in row.parents]
    heads = [each.text for each in page.find("th") if rows[0] in each.parents]
    for name in ("sample", "backward", "other", "rollout", "evaluation"):  # of old cells too
        assert f"{name},s" in heads
    (dag,) = [row for row in rows if "dag" in row.text and "style" in row.text][:1]
    for text in ("62.5 %", "1,234 J", "3.00 GiB", "4.00 GiB"):
        assert text in dag.text
    assert any("not measured" in row.text for row in rows if "ddpo" in row.text)
    chosen = [each.attributes["value"] for each in page.find("input", name="cost")]
    assert {"images", "training_seconds", "reward_calls", "unet_forward"} <= set(chosen)
