"""The page of two folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.html import write_comparison
from results import analysis, merged
from results.store import ResultsError, Run, read_run
from tests.reports.page import Page
from tests.results.synthetic import Synthetic
from tests.results.test_merged import other_protocol


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("other")
    return read_run(Synthetic(folder, methods=("dag",), seeds=(0, 1, 2)).write())


def ids(page: Page) -> list[str]:
    return [element.attributes["id"] for element in page.elements if "id" in element.attributes]


def test_one_protocol_is_one_set_of_sections(run: Run, other: Run, tmp_path: Path) -> None:
    path = write_comparison(run.folder, other.folder, tmp_path / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(set(ids(page))) == len(ids(page))
    assert len(page.find("div", data_part="")) == 1
    (table,) = page.find("table", data_task="style")
    rows = [e for e in page.find("tr") if table in e.parents and "data-method" in e.attributes]
    ((_, together),) = merged.merge(run, other).parts
    expected = [row.method for row in analysis.task_table(together, "style")]
    assert [row.attributes["data-method"] for row in rows] == expected
    assert {"dag [A]", "dag [B]", "ddpo"} <= set(expected)
    chips = {e.attributes["data-cell"] for e in page.elements if "data-cell" in e.attributes}
    assert chips == set(together.cells)
    (folders,) = page.find("section", id="folders")
    for each in (run, other):
        assert str(each.folder) in folders.text


def test_different_protocols_never_share_a_row(run: Run, tmp_path: Path) -> None:
    second = other_protocol(Synthetic(tmp_path / "run").write())
    path = write_comparison(run.folder, second, tmp_path / "page.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(set(ids(page))) == len(ids(page))
    known = {f"#{name}" for name in ids(page)}
    for link in page.find("a"):
        assert link.attributes["href"] in known
    for element in page.elements:
        for name in ("data-source", "aria-labelledby"):
            assert f"#{element.attributes.get(name, 'main')}" in known
    parts = {label: page.find("div", data_part=label) for label in ("A", "B")}
    for label, found in parts.items():
        (part,) = found
        chips = [e for e in page.elements if "data-cell" in e.attributes and part in e.parents]
        assert chips and all(e.attributes["data-cell"].startswith(f"{label}/") for e in chips)
    for table in page.find("table", data_task="style"):
        assert sum(part in table.parents for (part,) in parts.values()) == 1
    (folders,) = page.find("section", id="folders")
    assert "different protocols" in folders.text
    assert "ffff0000" in folders.text and "5f1c0a7e" in folders.text


def test_one_folder_twice_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="same folder"):
        write_comparison(run.folder, run.folder, tmp_path / "page.html")
