"""Aggregates over tasks: the definitions, complete blocks, and the table of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from results import aggregates, anchors, store
from results.aggregates import complete_blocks, interquartile_mean, performance_profile
from results.store import Run
from tests.results.synthetic import Synthetic


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    scores = np.array([[0.0, 7.0, 1.0, 100.0], [3.0, 4.0, -50.0, 5.0]])
    # Sorted: -50, 0, 1, 3, 4, 5, 7, 100.
    assert interquartile_mean(scores) == pytest.approx((1 + 3 + 4 + 5) / 4)
    assert interquartile_mean([[1.0, 2.0, 6.0]]) == pytest.approx(3.0)
    stacked = interquartile_mean(np.stack([scores, 2 * scores]))
    assert stacked == pytest.approx([3.25, 6.5])


def test_a_performance_profile_counts_what_lies_above() -> None:
    scores = [[0.1, 0.5], [0.3, 0.9], [0.5, 0.5]]
    profile = performance_profile(scores, [0.0, 0.3, 0.5, 0.9])
    assert profile == pytest.approx([1, 4 / 6, 1 / 6, 0])
    by_task = np.mean([np.array(scores) > limit for limit in (0.0, 0.3, 0.5, 0.9)], axis=1)
    assert profile == pytest.approx(by_task.mean(axis=-1))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.7), (0.98, 0.9), (0.1, 0.6)])
def test_the_band_of_a_profile_covers_at_least_what_it_says(shares: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    hits = random.random((2000, 3, 2)) < np.array(shares)
    bands = {
        tuple(np.asarray(scores, float).ravel()): aggregates.profile_band(scores, [0.5])
        for scores in np.unique(hits, axis=0)
    }
    covered = [
        low[0] <= np.mean(shares) <= high[0]
        for low, high in (bands[tuple(scores.astype(float).ravel())] for scores in hits)
    ]
    assert np.mean(covered) >= 0.95 - 0.01


def test_the_ends_of_the_band_are_those_of_the_scale() -> None:
    low, high = aggregates.profile_band([[0.2, 0.4], [0.3, 0.4]], [0.0, 1.0])
    assert (low[1], high[0]) == (0, 1)
    # Nothing of four: 1 - 0.025 ** (1 / 4).
    assert high[1] == pytest.approx(1 - 0.025**0.25) and low[0] == pytest.approx(0.025**0.25)


def test_a_seed_enters_with_all_its_tasks_or_not_at_all() -> None:
    blocks = complete_blocks([{0: 1.0, 1: 2.0, 3: 4.0}, {0: 5.0, 1: math.nan, 3: 8.0}], planned=4)
    assert blocks.seeds == [0, 3] and blocks.partial
    assert blocks.scores.tolist() == [[1.0, 5.0], [4.0, 8.0]]
    none = complete_blocks([{0: 1.0}, {}], planned=2)
    assert none.seeds == [] and math.isnan(aggregates.aggregate(none).mean)


def test_single_seeds_stand_beside_the_aggregate() -> None:
    blocks = complete_blocks([{0: 1.0, 2: 2.0}, {0: 3.0, 2: 6.0}], planned=2)
    value = aggregates.aggregate(blocks)
    assert not blocks.partial and value.values == {0: 2.0, 2: 4.0}
    assert value.mean == pytest.approx(2.5) and value.low < 2.5 < value.high


def test_anchors_are_base_and_best_of_n(run: Run) -> None:
    fixed = anchors.anchors(run, "style", "reward", "style")
    assert fixed.normalised(fixed.zero) == 0 and fixed.normalised(fixed.one) == 1
    assert fixed.usable and not anchors.Anchors(1.0, 1.0).usable
    assert math.isnan(anchors.Anchors(1.0, 0.5).normalised(0.7))
    rows = {(row.method, row.kind, row.name): row for row in aggregates.aggregate_table(run)}
    base = rows["base", "reward", ""].value
    assert base.low == base.mean == base.high == 0
    assert rows["best-of-n", "reward", ""].value.mean == pytest.approx(1, abs=0.05)
    assert rows["base", "diversity", "scorer"].value.mean == pytest.approx(1)


def test_another_method_does_not_move_a_score(run: Run, tmp_path: Path) -> None:
    fewer = store.read_run(Synthetic(tmp_path, seeds=(0, 1, 2), methods=("dag",)).write())
    values = [
        next(row.value for row in aggregates.aggregate_table(each) if row.method == "dag")
        for each in (run, fewer)
    ]
    assert values[0] == values[1]


def test_incomplete_blocks_are_counted_and_named(run: Run) -> None:
    rows = {row.method: row for row in reversed(aggregates.aggregate_table(run))}
    ddpo = rows["ddpo"]
    assert ddpo.blocks.seeds == [0, 2] and ddpo.blocks.planned == 3 and ddpo.blocks.partial
    alignprop = rows["alignprop"]
    assert alignprop.blocks.seeds == [] and alignprop.missing == ["colourfulness"]
    assert not rows["dag"].blocks.partial and rows["dag"].missing == []


def test_one_task_is_nothing_to_put_together(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, rewards=("style",)).write()
    assert aggregates.aggregate_table(store.read_run(folder)) == []
