"""Which checkpoint is reported: by validation alone, and everywhere the same."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results import aggregates, anchors, picks, samplers, store
from results.checkpoints import pick, validation_score
from results.curves import learning_curves, mean_curves
from results.records import AnchorRecord
from results.scores import final_scores
from tests.results.synthetic import Synthetic

NAN = math.nan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    """A run whose third checkpoint of four is the best on validation and the fourth on test."""
    folder = tmp_path_factory.mktemp("validated")
    return store.read_run(Synthetic(folder, measured=True, validated=True).write())


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 3.0, 2.0], 1),
        ([1.0, 3.0, 3.0], 1),
        ([2.0, 2.0, 2.0], 0),
        ([NAN, 1.0, NAN], 1),
        ([-math.inf, -5.0], 1),
        ([NAN, NAN], 0),
        ([7.0], 0),
    ],
)
def test_the_best_on_validation_and_of_equals_the_earlier(
    scores: list[float], expected: int
) -> None:
    values = [[[score, score], [score, score]] for score in scores]
    assert pick("best-on-validation", values) == expected
    assert pick("last", values) == len(scores) - 1


def test_a_mean_over_prompts_and_images() -> None:
    assert validation_score([[0.0, 1.0], [2.0, 3.0]]) == 1.5
    assert math.isnan(validation_score([]))
    assert math.isnan(validation_score([[1.0], [NAN]]))
    assert pick("best-on-validation", [[[0.0, 9.0]], [[5.0, 5.0]]]) == 1


def test_every_number_is_that_of_the_picked_checkpoint(run: store.Run) -> None:
    cell = run.cells["dag--style--s0"]
    assert cell.picked is cell.evaluations[2]
    expected = float(np.mean(cell.evaluations[2].rewards["style"]))
    assert final_scores(run, "dag", "style", "reward", "style")[0] == expected
    (found,) = [each for each in picks.picks(run) if each.cell is cell]
    assert [checkpoint.picked for checkpoint in found.checkpoints] == [False, False, True, False]
    assert found.picked.test == expected
    assert "In 9 of 9 trained cells it is not the last" in picks.describe(run)
    base = run.cells["base--none--s0"]
    assert base.picked is base.evaluations[-1]


def test_what_the_test_prompts_gave_cannot_change_the_choice(
    run: store.Run, tmp_path: Path
) -> None:
    folder = Synthetic(tmp_path, validated=True).write()
    random = np.random.default_rng(0)
    for path in folder.glob("cells/*/evaluations.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            for name, values in record["rewards"].items():
                record["rewards"][name] = (100 * random.normal(size=np.shape(values))).tolist()
            record["diversity"] = {name: [0.0] * 4 for name in record["diversity"]}
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    spoilt = store.read_run(folder)
    for cell_id, cell in run.cells.items():
        if cell.evaluations:
            assert spoilt.cells[cell_id].picked.round == cell.picked.round
            assert spoilt.cells[cell_id].picked.rewards != cell.picked.rewards


def test_without_validation_it_is_the_last(tmp_path: Path) -> None:
    plain = store.read_run(Synthetic(tmp_path).write())
    cell = plain.cells["dag--style--s0"]
    assert cell.picked is cell.evaluations[-1]
    assert picks.describe(plain) == "The last evaluation is reported, whatever it gave."
    assert samplers.sampler_table(plain, "style") == []


def test_samplers_stand_beside_each_other(run: store.Run) -> None:
    assert samplers.etas(run) == [1.0, 0.0]
    rows = {(row.method, row.eta): row for row in samplers.sampler_table(run, "style")}
    assert set(rows) == {
        *((method, eta) for method in ("base", "dag", "ddpo", "alignprop") for eta in (1.0, 0.0)),
        ("best-of-n", 1.0),
    }
    first, other = rows["dag", 1.0], rows["dag", 0.0]
    assert first.reward.mean == np.mean(
        list(final_scores(run, "dag", "style", "reward", "style").values())
    )
    assert first.to_first.seeds == rows["base", 0.0].gain.seeds == 0
    drawn = [run.cells[f"dag--style--s{seed}"].samplers[0].rewards["style"] for seed in (0, 1)]
    own = [run.cells[f"dag--style--s{seed}"].picked.rewards["style"] for seed in (0, 1)]
    assert other.to_first.mean == pytest.approx(np.mean(drawn) - np.mean(own))
    base = run.cells["base--none--s0"].samplers[0].rewards["style"]
    assert other.gain.mean == pytest.approx(np.mean(drawn) - np.mean(base))
    assert other.bad_images == {"black": 2}


def test_declared_anchors_take_the_place_of_the_controls(tmp_path: Path) -> None:
    fixed = {"style": AnchorRecord(zero=0.2, one=0.7, version="1")}
    run = store.read_run(Synthetic(tmp_path, anchors=fixed).write())
    found = anchors.anchors(run, "style", "reward", "style")
    assert (found.zero, found.one, found.declared) == (0.2, 0.7, True)
    scores = final_scores(run, "dag", "style", "reward", "style")
    expected = {seed: (value - 0.2) / 0.5 for seed, value in scores.items()}
    found_scores = aggregates.normalised_scores(run, "dag", "style", "reward", "")
    assert found_scores == pytest.approx(expected)
    own = anchors.anchors(run, "colourfulness", "reward", "colourfulness")
    assert not own.declared
    assert anchors.describe(run) == (
        "0 and 1 are fixed by the protocol (measured once): style 0.200 and 0.700. Of "
        "colourfulness, 0 and 1 are this run's own base and best-of-n, since the protocol fixes "
        "none."
    )


def test_without_declared_anchors_it_says_that_the_controls_are_the_runs(run: store.Run) -> None:
    assert anchors.describe(run) == (
        "Of every reward, 0 and 1 are this run's own base and best-of-n, since the protocol fixes "
        "none."
    )


def test_curves_of_two_protocols_are_never_one_row(tmp_path: Path) -> None:
    folders = [Synthetic(tmp_path / name, seeds=(0, 1)).write() for name in ("one", "other")]
    for path in folders[1].rglob("*.json"):
        path.write_text(path.read_text().replace("5f1c0a7e", "a7e5f1c0"))
    runs = [store.read_run(folder) for folder in folders]
    curves = pd.concat([learning_curves(run, "style") for run in runs])
    rows = mean_curves(curves)
    assert set(rows["protocol"]) == {"5f1c0a7e", "a7e5f1c0"}
    assert rows["seeds"].max() == 2
    alone = pd.concat([mean_curves(learning_curves(run, "style")) for run in runs])
    pd.testing.assert_frame_equal(rows, alone.reset_index(drop=True))


def test_a_run_does_not_hold_cells_of_two_protocols(run: store.Run) -> None:
    cell = run.cells["dag--style--s0"]
    assert cell.config is not None
    config = cell.config.model_copy(update={"protocol": "another"})
    mixed = run.cells | {cell.cell_id: dataclasses.replace(cell, config=config)}
    with pytest.raises(store.ResultsError, match="another.*not comparable"):
        store.Run(run.folder, run.record, mixed)
