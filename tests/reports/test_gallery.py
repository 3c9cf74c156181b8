"""The gallery stays below its limit by giving up quality, then pictures, then prompts."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports import gallery
from results import store
from results.store import Run
from tests.results.synthetic import Synthetic


def opened(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_pictures_are_embedded_without_loss_while_they_fit(run: Run) -> None:
    built = gallery.build(run)
    column = built.panels[0].columns[2]
    assert column.method == "dag" and not built.lossy
    shown = opened(column.pictures[1][2].source)
    kept = Image.open(store.sample_path(store.cell_folder(run.folder, "dag--style--s0"), 1, 2))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(kept))
    rewards = run.cells["dag--style--s0"].evaluations[-1].rewards["style"]
    assert column.pictures[1][2].value == rewards[1][2]


def test_every_column_of_a_panel_has_its_state(run: Run) -> None:
    built = gallery.build(run)
    panel = next(p for p in built.panels if (p.task, p.seed) == ("style", 1))
    states = {column.method: column.state for column in panel.columns}
    assert states["ddpo"] == "failed" and states["base"] == "done"
    assert next(column for column in panel.columns if column.method == "ddpo").pictures == []


@pytest.mark.parametrize("limit", [60_000, 15_000])
def test_it_keeps_to_its_limit(run: Run, limit: int) -> None:
    full, built = gallery.build(run), gallery.build(run, limit)
    sources = [
        picture.source
        for panel in built.panels
        for column in panel.columns
        for picture in (
            *(picture for row in column.pictures for picture in row),
            *(picture for chosen in column.picks.values() for _, picture in chosen),
        )
    ]
    assert sum(map(len, sources)) <= limit
    assert built.images < full.images or len(built.prompts) < len(full.prompts)
    assert (built.all_prompts, built.all_images) == (4, 4)


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.sample_path(store.cell_folder(folder, "base--none--s0"), 0, 0)
    Image.new("RGB", (512, 256), "teal").save(path)
    built = gallery.build(store.read_run(folder))
    assert opened(built.panels[0].columns[0].pictures[0][0].source).size == (128, 64)


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_a_missing_or_damaged_picture_leaves_a_gap(tmp_path: Path, content: bytes | None) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.sample_path(store.cell_folder(folder, "base--none--s0"), 0, 0)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    pictures = gallery.build(store.read_run(folder)).panels[0].columns[0].pictures
    assert pictures[0][0].source == "" and pictures[0][1].source
