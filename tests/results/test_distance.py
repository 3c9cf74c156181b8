"""Metrics over the distance from the untrained model, on runs whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from results import distance, metrics, records, store
from results.distance import PANEL, MetricCurves, TurnRow
from results.store import Run
from tests.results.synthetic import Synthetic


def shifted(folder: Path, panels: Mapping[str, Sequence[float]]) -> Run:
    """The run with cells of style whose panel, colourfulness alone, takes these values in units of
    base's spread after the untrained model."""
    base = store.read_cell(folder, "base--none--s0").evaluations[-1].rewards["colourfulness"]
    spread = float(np.std(base))
    for cell_id, values in panels.items():
        path = store.cell_folder(folder, cell_id) / "evaluations.jsonl"
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        for record, value in zip(evaluations, values, strict=True):
            record.rewards["colourfulness"] = (np.array(base) + value * spread).tolist()
        store.write_jsonl(path, evaluations)
    return store.read_run(folder)


def row_of(run: Run, method: str) -> TurnRow:
    (found,) = [row for row in distance.turn_rows(run, "style") if row.method == method]
    return found


def curves_of(run: Run, method: str) -> MetricCurves:
    (found,) = [each for each in distance.metric_curves(run, "style") if each.method == method]
    return found


def test_a_turn_by_seed_and_then_over_seeds(tmp_path: Path) -> None:
    run = shifted(
        Synthetic(tmp_path, seeds=(0, 1, 2)).write(),
        {
            "dag--style--s0": [0.2, 0.5, 0.1, -0.3],
            "dag--style--s1": [0.4, 0.3, 0.3, 0.2],
            "dag--style--s2": [-0.1, -0.2, -0.3, -0.4],
        },
    )
    row = row_of(run, "dag")
    assert (row.seeds, row.turned, row.from_start, row.planned) == (3, 3, 1, 3)
    assert row.rewards == ["colourfulness"]
    assert row.panel.values == pytest.approx({0: 0.5, 1: 0.4, 2: 0.0})
    assert row.images.values == {0: 64, 1: 32, 2: 0}
    # Path KL is 3 x share of training + seed / 10.
    expected = {0: math.sqrt(1.5), 1: math.sqrt(0.85), 2: 0.0}
    assert row.distance.values == pytest.approx(expected)
    assert row.distance.low < row.distance.mean < row.distance.high
    gains = {}
    for seed, index in ((0, 1), (1, 0)):
        rewards = run.cells[f"dag--style--s{seed}"].evaluations[index].rewards["style"]
        untrained = run.cells[f"base--none--s{seed}"].picked.rewards["style"]
        gains[seed] = float(np.mean(rewards) - np.mean(untrained))
    assert row.gain.values == pytest.approx(gains | {2: 0.0})
    assert row.end.values == pytest.approx({0: -0.3, 1: 0.2, 2: -0.4})


def test_where_only_some_seeds_turn_there_is_no_interval(tmp_path: Path) -> None:
    run = shifted(
        Synthetic(tmp_path, seeds=(0, 1, 2)).write(),
        {
            "dag--style--s0": [0.2, 0.5, 0.1, 0.1],
            "dag--style--s1": [0.4, 0.3, 0.1, 0.0],
            "dag--style--s2": [0.1, 0.2, 0.3, 0.4],
        },
    )
    row = row_of(run, "dag")
    assert (row.seeds, row.turned, row.from_start) == (3, 2, 0)
    assert row.panel.mean == pytest.approx(0.45) and math.isnan(row.panel.low)
    assert curves_of(run, "dag").turns == {0: 2, 1: 1, 2: None}
    assert row.end.seeds == 3 and not math.isnan(row.end.low)


def test_a_seed_with_a_value_that_is_not_finite_has_no_turn(tmp_path: Path) -> None:
    run = shifted(
        Synthetic(tmp_path, seeds=(0, 1)).write(), {"dag--style--s0": [0.2, math.nan, 0.1, 0.0]}
    )
    row = row_of(run, "dag")
    assert row.seeds == 1 and set(row.end.values) == {1}
    point = curves_of(run, "dag").means[2]
    assert math.isnan(curves_of(run, "dag").seeds[0][2].values[PANEL])
    assert point.values[PANEL].seeds == 1


def test_every_curve_begins_at_the_untrained_model(run: Run) -> None:
    for curves in distance.metric_curves(run, "style"):
        for points in curves.seeds.values():
            assert (points[0].distance, points[0].images, points[0].values[PANEL]) == (0, 0, 0)
            assert [point.distance for point in points] == sorted(
                point.distance for point in points
            )
            assert list(points[0].values) == distance.metrics(run)


def test_metrics_are_those_that_evaluations_record(run: Run) -> None:
    names = distance.metrics(run)
    assert names[:3] == [PANEL, "reward: style", "reward: colourfulness"]
    assert {"robustness gap: noise", "saturation", "bad images"} <= set(names)
    assert "diversity within a prompt, scorer" in names
    assert not [name for name in names if "fidelity" in name]
    record = run.cells["dag--style--s1"].evaluations[2]
    values = curves_of(run, "dag").seeds[1][3].values
    assert values["reward: colourfulness"] == pytest.approx(
        np.mean(record.rewards["colourfulness"])
    )
    assert values["saturation"] == pytest.approx(np.mean(record.image_statistics["saturation"]))
    # Noise takes away 0.01, and half of what dag gains in three quarters of its training.
    assert values["robustness gap: noise"] == pytest.approx(0.01 + 0.5 * 0.25 * 0.75)


def test_metrics_of_features_are_followed_from_the_untrained_model_on(run: Run) -> None:
    points = curves_of(run, "dag").seeds[1]
    assert points[0].values["recall of base, scorer"] == 1  # by definition
    measures = [
        run.cells[cell_id].measures["prompt_separation"].values
        for cell_id in ("base--none--s1", "dag--style--s1")
    ]
    expected = {
        value.round: value.value
        for values in measures
        for value in values
        if value.encoder == "scorer"
    }
    name = "separation of prompts, scorer"
    assert {point.round: point.values[name] for point in points} == expected
    assert len(set(expected.values())) == 5


def test_other_metrics_that_were_measured_are_followed_too(run: Run) -> None:
    names = distance.metrics(run)
    assert len(names) == len(set(names))
    for title in ("KID to base", "Coverage of base", "Vendi score", "Precision to base"):
        assert f"{title}, scorer" in names and f"{title}, efficientnet-lite0" in names
    assert not [name for name in names if name.lower().startswith("pairwise")]
    points = curves_of(run, "dag").seeds[1]
    values = run.cells["dag--style--s1"].measures["kid"].values
    expected = {v.round: v.value for v in values if v.encoder == "scorer"}
    assert {p.round: p.values["KID to base, scorer"] for p in points} == {0: 0.0} | expected
    untrained = run.cells["base--none--s1"].measures["vendi"].values
    (vendi,) = [value.value for value in untrained if value.encoder == "scorer"]
    assert points[0].values["Vendi score, scorer"] == vendi


@pytest.mark.parametrize("name", distance.UNTRAINED)
def test_the_untrained_model_compared_with_itself(name: str) -> None:
    features = np.random.default_rng(0).normal(size=(6, 8, 16)).astype(np.float32)
    measured = metrics.load(name).measure(features, features)
    assert measured.value == pytest.approx(distance.UNTRAINED[name], abs=1e-12)


def test_means_are_at_rounds_that_all_seeds_have_reached(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1)).write()
    path = store.cell_folder(folder, "dag--style--s1") / "evaluations.jsonl"
    evaluations = store.read_jsonl(path, records.EvaluationRecord)
    store.write_jsonl(path, evaluations[:2])
    curves = curves_of(store.read_run(folder), "dag")
    assert [point.round for point in curves.means] == [0, 2, 4]
    assert len(curves.seeds[0]) == 5
    assert curves.means[1].distance == pytest.approx((math.sqrt(0.75) + math.sqrt(0.85)) / 2)


def test_without_path_kl_a_turn_has_images_and_no_distance(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    for path in folder.glob("cells/*/evaluations.jsonl"):
        evaluations = store.read_jsonl(path, records.EvaluationRecord)
        for record in evaluations:
            record.path_kl.clear()
        store.write_jsonl(path, evaluations)
    run = shifted(
        folder,
        {
            "dag--style--s0": [0.2, 0.5, 0.1, 0.1],
            "dag--style--s1": [0.2, 0.1, 0.1, 0.0],
            "dag--style--s2": [-0.2, -0.3, -0.4, -0.5],
            **{f"alignprop--style--s{seed}": [-0.1, -0.2, -0.3, -0.4] for seed in range(3)},
        },
    )
    row = row_of(run, "dag")
    assert row.turned == 3 and row.images.values == {0: 64, 1: 32, 2: 0}
    assert row.distance.values == {}  # that of one seed alone, 0, would be no mean of theirs
    assert row_of(run, "alignprop").distance.mean == 0  # the untrained model is at none
    assert math.isnan(curves_of(run, "dag").means[1].distance)


def test_a_cell_whose_untrained_model_is_not_there_has_no_panel(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1)).write()
    (store.cell_folder(folder, "base--none--s1") / "status.json").unlink()
    row = row_of(store.read_run(folder), "dag")
    assert row.seeds == 1 and set(row.end.values) == {0} and row.planned == 2


def test_one_reward_has_curves_and_no_panel(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path, rewards=("style",)).write())
    row = row_of(run, "dag")
    assert (row.seeds, row.turned, row.rewards) == (0, 0, [])
    assert curves_of(run, "dag").means[-1].values["reward: style"].seeds == 2
