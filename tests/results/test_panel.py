"""The held-out panel: which rewards it is made of, in what unit, and where it turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from results import panel, records, store
from results.store import Run
from tests.results.synthetic import Synthetic

NAN = math.nan
Rewards = dict[str, list[list[float]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, -0.1, -0.4], 0),  # falls from the start
        ([0.0, 0.3, 0.5, 0.2, -1.0], 2),  # rises and falls
        ([0.0, 0.3, -0.2, 0.1], 1),  # recovers, but not to its best
        ([0.0, 0.1, 0.2], None),  # never falls
        ([0.0, 0.3, -0.2, 0.4], None),  # falls and more than recovers
        ([0.0, 0.5, 0.5, 0.2], 2),  # of equals the last, after which it only lies below
        ([0.0, 0.5, 0.2, 0.5], None),  # back at its best
        ([0.0, 0.0, 0.0], None),  # nothing changes
        ([0.0], None),  # only the untrained model
        ([0.0, -0.1], 0),
        ([0.0, 0.1], None),  # one evaluation
    ],
)
def test_the_turn_is_the_last_of_the_highest_if_any_follows(
    values: list[float], expected: int | None
) -> None:
    assert panel.turn(values) == expected


@pytest.mark.parametrize("values", [[], [0.0, NAN, 1.0], [math.inf, 0.0], [[0.0, 1.0]]])
def test_no_turn_of_what_has_no_highest(values: ArrayLike) -> None:
    with pytest.raises(ValueError, match="finite"):
        panel.turn(values)


def rewritten(folder: Path, change: Callable[[str, Rewards], None]) -> Run:
    """The run with every evaluation's rewards changed: of a cell id and its rewards, in place."""
    for path in folder.glob("cells/*/evaluations.jsonl"):
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        for record in evaluations:
            change(path.parent.name, record.rewards)
        store.write_jsonl(path, evaluations)
    return store.read_run(folder)


def test_changes_are_in_standard_deviations_of_the_untrained_model_s_images(
    tmp_path: Path,
) -> None:
    rewards = ("style", "colourfulness", "third")
    run = store.read_run(Synthetic(tmp_path, rewards=rewards).write())
    assert panel.panel_rewards(run, "style") == ["colourfulness", "third"]
    base = [run.cells[f"base--none--s{seed}"].evaluations[-1].rewards for seed in (0, 1)]
    record = run.cells["dag--style--s0"].evaluations[1]
    changes = []
    for name in ("colourfulness", "third"):
        images = np.array([each[name] for each in base]).ravel()
        by_hand = math.sqrt(sum((value - images.mean()) ** 2 for value in images) / len(images))
        assert panel.spreads(run)[name] == pytest.approx(by_hand)
        change = np.mean(record.rewards[name]) - np.mean(base[0][name])
        changes.append(change / by_hand)
    start = run.cells["base--none--s0"].picked
    found = panel.panel(run, "style", record, start)
    assert found == pytest.approx(sum(changes) / 2) and found < 0
    assert panel.panel(run, "style", start, start) == 0
    record.rewards["third"][0][0] = NAN
    assert math.isnan(panel.panel(run, "style", record, start))


def test_one_quantity_has_one_vote_and_none_where_it_is_trained_on(tmp_path: Path) -> None:
    def twins(cell_id: str, rewards: Rewards) -> None:
        for name in ("style", "colourfulness"):
            rewards[f"opposite of {name}"] = [[5 - 2 * v for v in row] for row in rewards[name]]

    run = rewritten(Synthetic(tmp_path).write(), twins)
    assert panel.panel_rewards(run, "style") == ["colourfulness"]
    assert panel.panel_rewards(run, "colourfulness") == ["style"]


def test_a_reward_that_lacks_a_cell_or_never_varies_is_not_of_the_panel(tmp_path: Path) -> None:
    def others(cell_id: str, rewards: Rewards) -> None:
        random = np.random.default_rng(len(cell_id))
        shape = np.shape(rewards["style"])
        rewards["constant"] = np.ones(shape).tolist()
        rewards["everywhere"] = random.normal(size=shape).tolist()
        if cell_id != "ddpo--colourfulness--s1":
            rewards["nearly everywhere"] = random.normal(size=shape).tolist()

    run = rewritten(Synthetic(tmp_path).write(), others)
    assert panel.panel_rewards(run, "style") == ["colourfulness", "everywhere"]


def test_what_a_composite_is_made_of_is_trained_on_with_it(tmp_path: Path) -> None:
    rewards = ("style", "colourfulness", "third", "sum")
    folder = Synthetic(tmp_path, rewards=rewards).write()
    declared = {"sum": {"sum": {"style": 1.0, "third": 0.5}, "product": []}}
    for path in folder.glob("cells/*/config.json"):
        config = store.read_json(path, records.CellConfig)
        store.write_json(path, config.model_copy(update={"composites": declared}))
    run = store.read_run(folder)
    assert panel.panel_rewards(run, "sum") == ["colourfulness"]
    assert panel.panel_rewards(run, "style") == ["colourfulness", "third"]
    assert panel.panel_rewards(run, "colourfulness") == ["style", "third", "sum"]


def test_a_panel_of_no_rewards_has_no_value(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path, rewards=("style",)).write())
    record = run.cells["dag--style--s0"].evaluations[0]
    assert panel.panel_rewards(run, "style") == []
    assert math.isnan(panel.panel(run, "style", record, record))
