"""Metrics of a run: paired with base, written whole, refusals kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from results import measuring, metrics, store
from results.measuring import measured_rows
from results.records import MeasureRecord
from results.store import Run
from tests.results.synthetic import IMAGES, Synthetic

DAG = "dag--style--s1"


def test_records_come_back_with_the_cell(run: Run) -> None:
    cell = run.cells[DAG]
    assert set(cell.measures) == set(metrics.registry())
    kid = cell.measures["kid"]
    assert kid.needs_base and kid.version == metrics.load("kid").version
    places = [(value.round, value.encoder) for value in kid.values]
    rounds = [record.round for record in cell.evaluations]
    assert places == [(r, e) for r in rounds for e in ("efficientnet-lite0", "scorer")]
    assert not list(run.folder.rglob("measures/.*"))


def test_values_are_those_of_the_stored_features(run: Run) -> None:
    cell, base = run.cells[DAG], run.cells["base--none--s1"]
    own, reference = (
        store.load_features(store.features_path(c.folder, c.evaluations[-1].round))
        for c in (cell, base)
    )
    for name in ("kid", "vendi", "recall"):
        value = measuring.final_measure(cell, name, "scorer")
        assert value is not None
        expected = metrics.load(name).measure(own["scorer"], reference["scorer"])
        assert (value.value, value.conditions) == (expected.value, expected.conditions)


def test_base_is_the_reference_and_not_compared_with_itself(run: Run) -> None:
    assert run.cells["base--none--s0"].measures["kid"].values == []
    assert [row.method for row in measured_rows(run, "kid") if row.method == "base"] == []
    assert all(row.change is None for row in measured_rows(run, "kid"))


def test_changes_are_paired_by_seed(run: Run) -> None:
    rows = {(row.method, row.task, row.encoder): row for row in measured_rows(run, "vendi")}
    row, base = rows["dag", "style", "scorer"], rows["base", "none", "scorer"]
    assert row.change is not None and row.change.seeds == 3
    assert row.change.values == {
        seed: value - base.level.values[seed] for seed, value in row.level.values.items()
    }
    assert row.change.mean < 0


def test_refusals_stay_visible(run: Run) -> None:
    for row in measured_rows(run, "fid"):
        assert "at least 10,000 images, not 16" in row.refused and not row.level.values
    assert "at least 100 pairs" in measured_rows(run, "near_duplicates")[0].refused


def test_values_of_different_conditions_are_not_put_together(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    measuring.measure_and_write(store.read_run(folder), metrics.load("vendi"))
    path = store.measure_path(store.cell_folder(folder, "dag--style--s0"), "vendi")
    record = store.read_json(path, MeasureRecord)
    for value in record.values:
        assert value.conditions["images_of_each_prompt"] == IMAGES
        value.conditions["images_of_each_prompt"] = 16
    store.write_json(path, record)
    rows = measured_rows(store.read_run(folder), "vendi")
    row = next(row for row in rows if row.method == "dag" and row.task == "style")
    assert "do not compare" in row.refused and not row.level.values
    assert all(row.level.values for row in rows if row.method == "ddpo")


def test_a_cell_that_failed_or_has_no_features_is_left_alone(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    features = store.features_path(store.cell_folder(folder, "dag--style--s0"), 8)
    features.unlink()
    ids = [cell.cell_id for cell in measuring.measurable(store.read_run(folder))]
    assert "dag--style--s0" not in ids and "ddpo--style--s1" not in ids
    assert "dag--style--s1" in ids


def test_without_base_of_the_seed_there_is_no_drift(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    (store.cell_folder(folder, "base--none--s0") / "status.json").unlink()
    run = store.read_run(folder)
    record = measuring.measure_cell(run, run.cells["dag--style--s0"], metrics.load("kid"))
    assert {value.refused for value in record.values} == {
        "kid needs the features of base, the untrained model"
    }


def test_features_that_are_not_finite_are_a_value_and_no_crash(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.features_path(store.cell_folder(folder, "dag--style--s0"), 8)
    features = {name: array.copy() for name, array in store.load_features(path).items()}
    features["scorer"][0, 0] = np.nan
    store.save_features(path, features)
    run = store.read_run(folder)
    for name in metrics.registry():
        record = measuring.measure_cell(run, run.cells["dag--style--s0"], metrics.load(name))
        bad = next(v for v in record.values if (v.round, v.encoder) == (8, "scorer"))
        assert bad.refused or (bad.value is not None and math.isnan(bad.value)), name


def test_a_damaged_measure_is_told(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.measure_path(store.cell_folder(folder, "dag--style--s0"), "vendi")
    store.write_bytes(path, b"{")
    with pytest.raises(store.ResultsError, match="vendi.json: damaged"):
        store.read_run(folder)
