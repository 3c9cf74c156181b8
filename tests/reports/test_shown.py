"""A run too large for one page: statistics are of all of it, and the page says what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import gallery, html
from reports.html import render
from reports.shown import ALL, FEWER, Limits, first_limits, shown, smaller, spread
from reports.tables import tables
from results import store
from results.condensed import CondensedEvaluation
from results.store import Run
from tests.reports.page import Page
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seeds of everything that a cell can leave behind."""
    written = Synthetic(
        tmp_path_factory.mktemp("run"), seeds=range(4), measured=True, validated=True
    )
    return written.write()


@pytest.fixture(scope="module")
def condensed(folder: Path) -> Run:
    return store.read_run(folder, condense=True)


def test_single_images_are_not_held(condensed: Run) -> None:
    trained = [cell for cell in condensed.cells.values() if cell.reward != store.NO_REWARD]
    for record in (record for cell in trained for record in cell.evaluations):
        assert isinstance(record, CondensedEvaluation)
        for values in (*record.rewards.values(), *record.image_statistics.values()):
            assert [len(images) for images in values] == [1]
        with pytest.raises(KeyError):
            record.by_prompt["another reward"]
    assert not any(cell.rounds for cell in condensed.cells.values())
    configs = [cell.config for cell in condensed.cells.values() if cell.config]
    assert len({id(config.evaluation_prompts) for config in configs}) == 1


def test_every_number_is_the_same_to_the_last_bit(folder: Path, condensed: Run) -> None:
    whole = store.read_run(folder)
    found = {table.name: table.csv() for table in tables(condensed)}
    assert found == {table.name: table.csv() for table in tables(whole)}
    assert len(found) > 15
    assert render(condensed) == render(whole)


def test_what_does_not_fit_is_left_out_and_told(
    condensed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = render(condensed)
    monkeypatch.setattr(html, "PICTURE_BYTES", 0)
    monkeypatch.setattr(html, "PAGE_BYTES", len(full.encode()) * 94 // 100)
    monkeypatch.setattr(gallery, "EMBEDDED_BYTES", 0)
    without_pictures = render(condensed)
    monkeypatch.setattr(html, "PAGE_BYTES", len(without_pictures.encode()) - 100_000)
    text = render(condensed)
    assert len(text.encode()) <= html.PAGE_BYTES
    page, before = Page(text), Page(full)
    notes = [each.text for each in page.find("p") if "data-shown" in each.attributes]
    assert sum("the first 1 of 2 training rewards" in note for note in notes) >= 10
    assert not [each for each in before.find("p") if "data-shown" in each.attributes]
    rows = [
        [
            each.attributes["data-value"]
            for each in found.find("td")
            if "data-low" in each.attributes
        ]
        for found in (page, before)
    ]
    assert rows[0] and rows[0] == rows[1][: len(rows[0])] and len(rows[0]) < len(rows[1])
    leads = [found.find("p", id="verdict")[0].text for found in (page, before)]
    assert leads[0] == leads[1]  # of the whole run


def test_nothing_is_smaller_than_the_smallest_page(
    condensed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "PAGE_BYTES", 0)
    page = Page(render(condensed))
    (note, *_) = [each.text for each in page.find("p") if "data-shown" in each.attributes]
    assert "1 of 2 training rewards" in note
    assert "1 of 5 methods" in note and "1 of 4 seeds" in note
    summaries = [each for each in page.find("code") if "data-key" in each.attributes]
    assert len(summaries) == 1


def test_limits_fall_to_the_smallest_and_end(condensed: Run) -> None:
    assert first_limits([condensed]) == ALL
    assert first_limits([condensed] * 100) == FEWER
    limits: Limits | None = ALL
    seen = []
    while limits is not None:
        seen.append(limits)
        limits = smaller(limits, [condensed], 0.5)
    assert seen[0] == ALL and seen[-1] == Limits(1, 1, 1, 1)
    assert len(seen) < 12


def test_all_is_shown_without_a_note(condensed: Run) -> None:
    every = shown(condensed, ALL)
    assert every.tasks == ["style", "colourfulness"] and every.seeds == [0, 1, 2, 3]
    assert every.note == ""
    assert "the first 2 of 4 seeds" in shown(condensed, Limits(seeds=2)).note


def test_values_are_spread_evenly() -> None:
    assert spread(range(5), None) == range(5) and spread(range(5), 5) == range(5)
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert list(spread(range(9), 1)) == [0]


def test_a_gallery_of_many_panels_keeps_to_its_limit(condensed: Run) -> None:
    built = gallery.build(condensed, 12_000)
    assert built.panels and len(built.panels) < 8
    assert (built.all_tasks, built.all_seeds) == (2, 4)
    used = sum(
        len(picture.source) + gallery.MARKUP_BYTES
        for panel in built.panels
        for column in panel.columns
        for row in column.pictures
        for picture in row
    )
    assert used <= 12_000


def test_long_prompts_beside_the_pictures_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"{number} " + "fox " * 5000 for number in range(4)]
    run = store.read_run(Synthetic(tmp_path, prompts=prompts).write())
    with monkeypatch.context() as patch:
        patch.setattr(gallery, "build", lambda *_: gallery.EMPTY)
        bare = len(render(run).encode())
    monkeypatch.setattr(html, "PAGE_BYTES", bare + 150_000)
    limits: list[int] = []
    build = gallery.build

    def noted(run: Run, limit: int, methods: list[str]) -> gallery.Gallery:
        limits.append(limit)
        return build(run, limit, methods)

    monkeypatch.setattr(gallery, "build", noted)
    text = render(run)
    assert len(text.encode()) <= html.PAGE_BYTES
    assert Page(text).find("img")
    assert limits[0] == 150_000 and len(limits) > 1
