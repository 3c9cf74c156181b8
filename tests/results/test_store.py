"""Run folders: whole files, logs that survive a kill, and one clear line for what is unusable."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from results import records, store
from tests.results.synthetic import PROTOCOL, Synthetic, as_version_1


def round_record(number: int, loss: float = 0.5) -> records.RoundRecord:
    return records.RoundRecord(
        round=number, images=8 * number, counts=records.Counts(), seconds={}, metrics={"loss": loss}
    )


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path).write())
    assert run.record.protocol == PROTOCOL
    assert list(run.cells) == run.record.cells
    cell = run.cells["dag--style--s1"]
    assert (cell.method, cell.reward, cell.seed) == ("dag", "style", 1)
    assert cell.config is not None and cell.config.cell_id == cell.cell_id
    assert [record.round for record in cell.evaluations] == [2, 4, 6, 8]
    assert cell.evaluations[-1].counts == cell.status.counts
    assert run.cells["ddpo--style--s1"].status.state == "failed"
    assert run.cells["alignprop--colourfulness--s0"].status.state == "not_applicable"


def test_method_names_may_hold_single_dashes(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path).write())
    cell = run.cells["best-of-n--style--s0"]
    assert (cell.method, cell.reward) == ("best-of-n", "style")


def test_writing_leaves_no_temporary_file_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "status.json"
    store.write_json(path, records.StatusRecord(state="running"))
    store.write_json(path, records.StatusRecord(state="done"))
    assert os.listdir(path.parent) == ["status.json"]
    assert store.read_json(path, records.StatusRecord).state == "done"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    store.write_json(path, records.StatusRecord(state="running"))

    def refuse(source: str, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Read-only"):
        store.write_json(path, records.StatusRecord(state="done"))
    assert os.listdir(tmp_path) == ["status.json"]
    assert store.read_json(path, records.StatusRecord).state == "running"


def test_a_half_written_last_line_is_left_out_and_then_written_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in (1, 2):
        store.append_jsonl(path, round_record(number))
    whole = path.read_bytes()
    line = whole.split(b"\n")[1]
    for length in range(1, len(line) + 1):
        path.write_bytes(whole + line[:length])
        read = store.read_jsonl(path, records.RoundRecord)
        assert [record.round for record in read] == [1, 2]
    store.append_jsonl(path, round_record(3))
    read = store.read_jsonl(path, records.RoundRecord)
    assert [record.round for record in read] == [1, 2, 3]


def test_a_last_line_cut_within_a_character_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    store.append_jsonl(path, round_record(1))
    path.write_bytes(path.read_bytes() + '{"é'.encode()[:-1])
    assert len(store.read_jsonl(path, records.RoundRecord)) == 1


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 1\n')
    with pytest.raises(store.ResultsError, match=r"metrics\.jsonl line 1: damaged"):
        store.read_jsonl(path, records.RoundRecord)


def test_a_log_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    store.append_jsonl(path, round_record(7))
    store.write_jsonl(path, [round_record(1), round_record(2)])
    assert [record.round for record in store.read_jsonl(path, records.RoundRecord)] == [1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_survive_as_strict_json(tmp_path: Path, value: float) -> None:
    path = tmp_path / "metrics.jsonl"
    store.append_jsonl(path, round_record(1, loss=value))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    (read,) = store.read_jsonl(path, records.RoundRecord)
    assert read.metrics["loss"] == pytest.approx(value, nan_ok=True)


def test_features_come_back(tmp_path: Path) -> None:
    features = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    path = tmp_path / "4.safetensors"
    store.save_features(path, {"scorer": features.astype(np.float64)})
    np.testing.assert_array_equal(store.load_features(path)["scorer"], features)
    path.write_bytes(b"nothing")
    with pytest.raises(store.ResultsError, match=r"4\.safetensors: cannot be read"):
        store.load_features(path)


def test_features_name_their_schema_version(tmp_path: Path) -> None:
    features, path = {"scorer": np.zeros((1, 2, 3), np.float32)}, tmp_path / "4.safetensors"
    store.save_features(path, features)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"schema_version": str(records.SCHEMA_VERSION)}
    save_file(features, path)  # as before files of features named it
    assert store.load_features(path)["scorer"].shape == (1, 2, 3)
    for version in ("99", "new"):
        save_file(features, path, metadata={"schema_version": version})
        with pytest.raises(store.ResultsError, match=f"{version}'?, but this program reads"):
            store.load_features(path)


def test_unfinished_cells_are_pending_or_running(tmp_path: Path) -> None:
    run_folder = Synthetic(tmp_path).write()
    (store.cell_folder(run_folder, "dag--style--s0") / "status.json").unlink()
    folder = store.cell_folder(run_folder, "dag--style--s1")
    folder.rename(tmp_path / "elsewhere")
    run = store.read_run(run_folder)
    assert run.cells["dag--style--s0"].status.state == "running"
    assert run.cells["dag--style--s1"].status.state == "pending"
    assert run.cells["dag--style--s1"].config is None


def one_line(folder: Path) -> str:
    with pytest.raises(store.ResultsError) as caught:
        store.read_run(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    assert "not a results folder" in one_line(tmp_path)
    assert "not a results folder" in one_line(tmp_path / "missing")


@pytest.mark.parametrize("name", ["run.json", "cells/dag--style--s0/config.json"])
def test_another_schema_version_is_refused_before_its_fields_are_read(
    tmp_path: Path, name: str
) -> None:
    run_folder = Synthetic(tmp_path).write()
    fields = json.loads((run_folder / name).read_text())
    fields |= {"schema_version": records.SCHEMA_VERSION + 1, "a_new_field": True}
    (run_folder / name).write_text(json.dumps(fields))
    message = one_line(run_folder)
    assert name in message and "schema version 5" in message and "reads 1, 2, 3 and 4" in message


def test_a_folder_of_version_1_is_read_as_it_was_reported(tmp_path: Path) -> None:
    run = store.read_run(as_version_1(Synthetic(tmp_path).write()))
    assert run.record.schema_version == 1 and run.record.protocol == PROTOCOL
    cell = run.cells["dag--style--s0"]
    assert cell.picked is cell.evaluations[-1]
    assert cell.samplers == [] and run.record.anchors == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "damaged"), ('{"state": "finished"}', "damaged: state"), ('{"sate": "done"}', "state")],
)
def test_a_damaged_file_is_named_with_its_field(
    tmp_path: Path, content: str, expected: str
) -> None:
    run_folder = Synthetic(tmp_path).write()
    path = store.cell_folder(run_folder, "dag--style--s0") / "status.json"
    path.write_text(content)
    message = one_line(run_folder)
    assert str(path) in message and expected in message


def test_a_cell_of_another_protocol_is_refused(tmp_path: Path) -> None:
    run_folder = Synthetic(tmp_path).write()
    path = store.cell_folder(run_folder, "ddpo--style--s0") / "config.json"
    path.write_text(path.read_text().replace(PROTOCOL, "another"))
    message = one_line(run_folder)
    assert "another" in message and PROTOCOL in message and "not comparable" in message


@pytest.mark.parametrize("cell_id", ["../../secret", "dag--style", "dag--style--s0/../x", ""])
def test_a_cell_id_cannot_lead_out_of_the_run(tmp_path: Path, cell_id: str) -> None:
    run_folder = Synthetic(tmp_path).write()
    fields = json.loads((run_folder / "run.json").read_text())
    fields["cells"].append(cell_id)
    (run_folder / "run.json").write_text(json.dumps(fields))
    assert "is not <method>--<reward>--s<seed>" in one_line(run_folder)
