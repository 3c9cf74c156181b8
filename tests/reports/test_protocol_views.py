"""The protocol on the page: its hash in every table, the checkpoints picked, the samplers."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.html import render
from reports.protocol_views import stamped
from results import picks, samplers, store
from results.records import AnchorRecord
from results.store import Run
from tests.reports.page import Page
from tests.results.synthetic import PROTOCOL, Synthetic, as_version_1


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("validated")
    anchors = {"style": AnchorRecord(zero=0.2, one=0.7, version="1")}
    return store.read_run(Synthetic(folder, validated=True, anchors=anchors).write())


@pytest.fixture(scope="module")
def parsed(validated: Run) -> Page:
    return Page(render(validated))


def test_the_hash_stands_in_every_table(parsed: Page, page: str) -> None:
    for found in (parsed, Page(page)):
        tables = found.find("table")
        captions = [each for each in found.find("caption") if PROTOCOL in each.text]
        assert len(tables) == len(captions) > 10


def test_a_caption_keeps_its_text() -> None:
    plain = '<table data-task="a"><thead></thead></table>'
    titled = "<table>\n<caption><b>style</b></caption></table>"
    assert stamped(plain, "a&b") == (
        '<table data-task="a"><caption><span class="protocol">protocol <code>a&amp;b</code></span>'
        "</caption><thead></thead></table>"
    )
    assert stamped(titled, "0f") == (
        '<table><caption><b>style</b> · <span class="protocol">protocol <code>0f</code></span>'
        "</caption></table>"
    )


def test_every_cell_tells_which_checkpoint_was_picked(validated: Run, parsed: Page) -> None:
    rows = [row for row in parsed.find("tr") if "data-round" in row.attributes]
    assert len(rows) == sum(len(each.checkpoints) for each in picks.picks(validated))
    for each in picks.picks(validated):
        own = [row for row in rows if row.inside("tbody", **{"data-cell": each.cell.cell_id})]
        picked = [row for row in own if "data-picked" in row.attributes]
        assert [row.attributes["data-round"] for row in picked] == [str(each.picked.round)]
        assert "★" in picked[0].text
    (sentence,) = parsed.find("p", id="picks")
    assert sentence.text == picks.describe(validated)


def test_samplers_stand_beside_each_other(validated: Run, parsed: Page) -> None:
    for task in ("style", "colourfulness"):
        (table,) = parsed.find("table", class_="samplers", data_task=task)
        rows = [row for row in parsed.find("tr") if table in row.parents and row.attributes]
        expected = samplers.sampler_table(validated, task)
        assert [(row.attributes["data-method"], row.attributes["data-eta"]) for row in rows] == [
            (row.method, f"{row.eta:g}") for row in expected
        ]


def test_the_page_says_what_normalises_rewards(parsed: Page, page: str) -> None:
    (sentence,) = parsed.find("p", id="anchors")
    assert "fixed by the protocol (measured once): style 0.200 and 0.700" in sentence.text
    assert "colourfulness, 0 and 1 are this run's own base and best-of-n" in sentence.text
    (sentence,) = Page(page).find("p", id="anchors")
    assert sentence.text.startswith("Of every reward, 0 and 1 are this run's own")


def test_a_folder_of_version_1_still_has_its_page(tmp_path: Path) -> None:
    run = store.read_run(as_version_1(Synthetic(tmp_path).write()))
    text = Page(render(run)).find("p", id="picks")[0].text
    assert text == "The last evaluation is reported, whatever it gave."
