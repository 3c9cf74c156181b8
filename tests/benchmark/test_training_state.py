"""Checkpoints of training: which is taken up, and what of a cell's folder it vouches for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import memory, state_file
from benchmark.jobs import CellJob
from benchmark.suite import EvaluationSettings, ModelSettings
from benchmark.training_state import History, Position, TrainingCheckpoints, identity
from results import store
from results.records import CellConfig, Environment


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The folder of a cell that has trained four rounds with two evaluations, saved after each
    round, and was killed in the fifth."""
    folder = tmp_path / "cell"
    for name in ("config.json", "environment.json", "status.json", "log.txt"):
        write(folder / name, name)
    checkpoints = TrainingCheckpoints(folder, "a cell", every=1)
    for round_ in range(1, 5):
        append(folder / "metrics.jsonl", f"round {round_}\n")
        evaluations = round_ // 2
        if round_ % 2 == 0:
            write(folder / "features" / f"{round_}.safetensors", "features")
            append(folder / "evaluations.jsonl", f"evaluation {evaluations}\n")
        checkpoints.save(Position(round_, evaluations), {"weights": torch.full((3,), round_)})
    append(folder / "metrics.jsonl", "round 5\nround")
    write(folder / "features" / ".6.safetensors.x.part", "")
    write(folder / "features" / "6.safetensors", "features")
    write(folder / "samplers.jsonl", "eta 0\n")
    write(folder / "lora" / "weights", "")
    write(folder / ".lora.part" / "weights", "")
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("r*"))


def taken(
    folder: Path, identity: str = "a cell"
) -> tuple[Position | None, list[str], dict[str, Any]]:
    """Where the cell goes on, what is noted, and all files left with what they hold."""
    checkpoints = TrainingCheckpoints(folder, identity)
    found = checkpoints.take_up()
    if found:
        assert torch.equal(found[1]["weights"], torch.full((3,), found[0].round))
        assert checkpoints.history.resumed_after == [found[0].round]
    paths = [path for path in folder.rglob("*") if path.is_file()]
    left = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in paths
        if path.parent.name != "checkpoints"
    }
    return found[0] if found else None, checkpoints.history.notes, left


OWN = {name: name for name in ("config.json", "environment.json", "status.json", "log.txt")}


def kept(rounds: int) -> dict[str, str]:
    """Files of a cell that goes on after so many rounds."""
    evaluations = rounds // 2
    features = {f"features/{2 * e}.safetensors": "features" for e in range(1, evaluations + 1)}
    return {
        **OWN,
        "metrics.jsonl": "".join(f"round {r}\n" for r in range(1, rounds + 1)),
        "evaluations.jsonl": "".join(f"evaluation {e}\n" for e in range(1, evaluations + 1)),
        **features,
    }


def test_the_newest_is_taken_up_and_what_came_later_is_removed(cell: Path) -> None:
    assert taken(cell) == (Position(4, 2), [], kept(4))
    assert not list(cell.rglob(".*"))
    assert not (cell / "lora").exists()
    assert taken(cell) == (Position(4, 2), [], kept(4))


def test_the_two_newest_are_kept(cell: Path) -> None:
    names = sorted(path.name.partition("-")[0] for path in (cell / "checkpoints").iterdir())
    assert names == ["r3", "r4"]
    for path in (cell / "checkpoints").iterdir():
        assert state_file.checksum(path.read_bytes()) in path.name


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_one_is_noted_and_the_one_before_is_used(cell: Path, damage: str) -> None:
    path = newest(cell)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    parts = {"flipped": bytes(content), "cut": path.read_bytes()[:-1], "empty": b""}
    path.write_bytes(parts[damage])
    position, (note,), left = taken(cell)
    assert note.startswith("checkpoint r4-e2 is not used: it") and "\n" not in note
    assert (position, left) == (Position(3, 1), kept(3))
    assert taken(cell)[1] == []  # told once


def test_one_that_was_being_written_is_noted(cell: Path) -> None:
    part = cell / "checkpoints" / ".r5-e2-x.safetensors.y.part"
    write(part, "half")
    assert taken(cell) == (
        Position(4, 2),
        ["a checkpoint that was being written is left out"],
        kept(4),
    )
    assert not part.exists()


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("metrics.jsonl", "round 1\nround 2\n", "metrics.jsonl is not what it was then"),
        ("metrics.jsonl", None, "metrics.jsonl is not what it was then"),
        ("evaluations.jsonl", "evaluation 1\nevaluation 7\n", "evaluations.jsonl is not"),
        ("features/4.safetensors", None, "features/4.safetensors is missing"),
    ],
)
def test_a_log_that_it_does_not_fit_is_noted(
    cell: Path, path: str, text: str | None, reason: str
) -> None:
    (cell / path).unlink()
    if text is not None:
        write(cell / path, text)
    position, notes, left = taken(cell)
    assert reason in notes[0]
    if path == "metrics.jsonl":  # of neither checkpoint
        assert (position, len(notes), left) == (None, 2, OWN)
    else:
        assert (position, len(notes), left) == (Position(3, 1), 1, kept(3))


def test_that_of_another_cell_is_never_used(cell: Path) -> None:
    position, notes, left = taken(cell, "another cell")
    assert (position, left) == (None, OWN)
    assert [note.endswith("it is of other settings or other code") for note in notes] == [True] * 2


def job(folder: Path, **changes: Any) -> CellJob:
    config = {
        **dict.fromkeys(("cell_id", "method", "reward", "suite", "protocol"), "x"),
        **dict.fromkeys(("seed", "budget_images", "images_per_prompt", "evaluations"), 1),
        **dict.fromkeys(("train_prompts", "evaluation_prompts", "rewards"), ["x"]),
        **dict.fromkeys(("model", "method_config"), {}),
    }
    fields: dict[str, Any] = {
        "config": CellConfig.model_validate(config | changes.pop("config", {})),
        "model": ModelSettings(),
        "evaluation": EvaluationSettings(),
        "environment": None,
        "folder": folder,
    }
    return CellJob(**{**fields, **changes})


def test_settings_and_code_identify_a_cell_and_folder_and_machine_do_not(tmp_path: Path) -> None:
    known = identity(job(tmp_path))
    machine = Environment.model_construct(cpu="another")
    same = job(tmp_path / "elsewhere", environment=machine, checkpoint_every=3)
    assert identity(same) == known
    others = [
        job(tmp_path, config={"source": "other code"}),
        job(tmp_path, config={"seed": 2}),
        job(tmp_path, config={"method_config": {"learning_rate": 1e-3}}),
        job(tmp_path, model=ModelSettings(lora_rank=4)),
        job(tmp_path, evaluation=EvaluationSettings(batch_size=1)),
    ]
    assert len({known, *map(identity, others)}) == len(others) + 1


def test_a_full_disk_is_noted_and_the_older_stay(
    cell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = TrainingCheckpoints(cell, "a cell", every=1)
    checkpoints.take_up()
    monkeypatch.setattr(store, "write_bytes", full)
    checkpoints.save(Position(5, 2), {})
    note = "no checkpoint could be written at r5-e2: No space left on device"
    assert checkpoints.history.notes == [note]
    assert note in capsys.readouterr().out
    monkeypatch.undo()
    assert taken(cell)[0] == Position(4, 2)


def test_they_are_due_as_often_as_their_cost_allows(
    cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    checkpoints = TrainingCheckpoints(cell, "a cell")
    assert checkpoints.due(1)
    write_bytes = store.write_bytes

    def slowly(*arguments: Any, **options: Any) -> None:
        nonlocal now
        now += 0.5
        write_bytes(*arguments, **options)

    monkeypatch.setattr(store, "write_bytes", slowly)
    checkpoints.save(Position(5, 2), {})
    now += 49.9
    assert not checkpoints.due(2)
    now += 0.2
    assert checkpoints.due(3)
    assert [dataclasses.replace(checkpoints, every=3).due(r) for r in (2, 3)] == [False, True]


def touched(megabytes: int) -> np.ndarray:
    """Memory that is resident until it is freed."""
    return np.ones(megabytes * 2**20, np.uint8)


@pytest.mark.skipif(not memory.reset(), reason="peaks of memory cannot be begun anew here")
def test_memory_of_training_is_told_apart_from_that_of_evaluations() -> None:
    history, before = History(), memory.peak_resident()
    assert history.training_peaks == {}
    evaluation = touched(300)
    del evaluation
    for megabytes in (100, 50):
        with history.training():
            round_ = touched(megabytes)
            del round_
    training, whole = (
        peaks["peak_memory_bytes"] for peaks in (history.training_peaks, history.peaks)
    )
    assert training is not None and whole is not None
    assert whole >= before and whole - training > 150 * 2**20  # the evaluation is in one alone
    later = History()
    later.go_on(1, history.state_dict())
    with later.training():
        pass
    assert later.training_peaks == history.training_peaks
    assert later.peaks["peak_memory_bytes"] == whole
