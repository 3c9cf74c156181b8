"""Pictures chosen by rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports import gallery
from reports.picks import picks
from results import store
from results.store import Cell, Run
from tests.results.synthetic import Synthetic


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return store.read_run(Synthetic(tmp_path).write()).cells["dag--style--s0"]


def with_rewards(cell: Cell, rewards: list[list[float]]) -> Cell:
    last = cell.evaluations[-1].model_copy(update={"rewards": {"style": rewards}})
    return replace(cell, evaluations=[*cell.evaluations[:-1], last])


def chosen(cell: Cell) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for pick in picks(cell, "style"):
        found.setdefault(pick.rule, []).append((pick.prompt, pick.image))
    return found


def test_worst_median_and_best_are_of_all_pictures(cell: Cell) -> None:
    values = [[5.0, 1.0, 7.0, 2.0], [3.0, 9.0, 4.0, 8.0], [6.0] * 4, [6.0] * 4]
    found = chosen(with_rewards(cell, values))
    assert found["worst"] == [(0, 1)] and found["best"] == [(1, 1)]
    assert found["median"] == [(2, 0)]  # the first of those with the value of the eighth
    (median,) = [p for p in picks(with_rewards(cell, values), "style") if p.rule == "median"]
    assert median.value == 6.0


def test_of_equal_pictures_the_first_counts_and_not_finite_ones_never(cell: Cell) -> None:
    nan = float("nan")
    values = [[nan, 2.0, 2.0, 1.0], [1.0, 2.0, nan, 1.0], [nan] * 4, [nan] * 4]
    found = chosen(with_rewards(cell, values))
    assert (found["worst"], found["best"]) == ([(0, 3)], [(0, 1)])
    assert chosen(with_rewards(cell, [[nan] * 4] * 4)) == {}
    assert picks(cell, "nothing") == []


def test_the_pair_is_the_nearest_of_one_prompt(cell: Cell) -> None:
    path = store.features_path(cell.folder, cell.evaluations[-1].round)
    vectors = np.random.default_rng(0).normal(size=(4, 4, 16))
    vectors[2, 3] = 5 * vectors[2, 1] + 1e-3  # nearly the same direction
    vectors[0, 0] = vectors[1, 0]  # of two prompts: never a pair
    store.save_features(path, {"scorer": vectors})
    pair = [pick for pick in picks(cell, "style") if pick.rule == "pair"]
    assert [(p.prompt, p.image) for p in pair] == [(2, 1), (2, 3)]
    assert 0 <= pair[0].distance < 1e-6
    path.unlink()
    assert "pair" not in chosen(cell)


def test_the_gallery_shows_them_from_the_whole_evaluation(run: Run) -> None:
    built = gallery.build(run, 150_000)
    panel = next(panel for panel in built.panels if (panel.task, panel.seed) == ("style", 0))
    assert len(built.prompts) < built.all_prompts
    assert list(panel.rules) == ["worst", "median", "best", "pair"]
    column = next(column for column in panel.columns if column.method == "dag")
    rewards = run.cells["dag--style--s0"].evaluations[-1].rewards["style"]
    ((_, best),) = column.picks["best"]
    assert best.value == max(max(images) for images in rewards) and best.source
    assert len(column.picks["pair"]) == 2
