"""One cell in this process: which checkpoint it keeps, and that choosing costs training nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import torch
import yaml

from benchmark import environment, resolution, suite
from benchmark import run as runs
from benchmark.cell import run_cell
from benchmark.evaluation import Evaluation, Evaluator, Values
from benchmark.jobs import CellJob
from results import store
from results.store import Cell
from tests.benchmark.conftest import write_suite

CELL = "ddpo--colourfulness--s0"


def run_one(folder: Path, model: Path, cell_id: str = CELL, **changes: Any) -> Cell:
    """A cell of the tiny suite, done; ``changes`` are keys of its ``evaluation`` or ``budget``."""
    folder.mkdir()
    path = write_suite(folder, model)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        values["budget" if name == "images" else "evaluation"][name] = value
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    read, origins = suite.read(str(path))
    resolved = resolution.resolve(suite.check(read, origins), origins)
    planned = runs.plan(resolved, folder / "run", "a test")
    (cell,) = [cell for cell in planned.cells if cell.id == cell_id]
    job = CellJob(
        config=runs.cell_config(planned, cell),
        model=resolved.suite.model,
        evaluation=resolved.suite.evaluation,
        environment=environment.describe("a test", 1),
        folder=store.cell_folder(folder / "run", cell_id),
    )
    status = run_cell(job, lambda progress: None)
    assert status.state == "done", status.traceback
    return store.read_cell(folder / "run", cell_id)


def weights(cell: Cell) -> dict[str, Any]:
    path = cell.folder / "lora" / "pytorch_lora_weights.safetensors"
    return safetensors.numpy.load_file(path)


def same_weights(one: Cell, other: Cell) -> bool:
    mine, others = weights(one), weights(other)
    return mine.keys() == others.keys() and all((mine[k] == others[k]).all() for k in mine)


def pictures(cell: Cell) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cell.folder / "samples").iterdir()}


def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation scores that fall from one evaluation to the next, whatever is measured."""
    scores: Iterator[float] = iter([3.0, 2.0, 1.0])

    def values(self: Evaluator, name: str) -> Values:
        return [[next(scores)]]

    monkeypatch.setattr(Evaluator, "reward_values", values)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Cell:
    """The cell as its suite has it: best on validation, eta 1 and 0."""
    return run_one(tmp_path_factory.mktemp("cell") / "plain", tiny_model)


def test_validation_and_samplers_are_recorded(plain: Cell) -> None:
    assert plain.config is not None
    assert plain.config.etas == [1.0, 0.0]
    for record in plain.evaluations:
        assert [len(images) for images in record.validation] == [2, 2]
    means = [sum(map(sum, record.validation)) for record in plain.evaluations]
    assert plain.picked is plain.evaluations[means.index(max(means))]
    (drawn,) = plain.samplers
    assert (drawn.eta, drawn.round) == (0.0, plain.picked.round)
    assert drawn.rewards.keys() == plain.picked.rewards.keys()
    assert drawn.rewards["colourfulness"] != plain.picked.rewards["colourfulness"]


def test_an_earlier_checkpoint_is_kept_whole(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, plain: Cell
) -> None:
    falling(monkeypatch)
    early = run_one(tmp_path / "early", tiny_model)
    monkeypatch.undo()
    short = run_one(tmp_path / "short", tiny_model, images=4, times=1, checkpoint="last")
    last = run_one(tmp_path / "last", tiny_model, checkpoint="last")
    assert early.picked.round == short.picked.round == 1
    assert len(early.evaluations) == len(last.evaluations) == 2
    assert same_weights(early, short) and not same_weights(early, last)
    assert pictures(early) == pictures(short) != pictures(last)
    assert early.samplers[0].rewards == short.samplers[0].rewards != last.samplers[0].rewards
    assert early.picked.rewards == short.picked.rewards


def test_choosing_does_not_disturb_training(tmp_path: Path, tiny_model: Path, plain: Cell) -> None:
    bare = run_one(tmp_path / "bare", tiny_model, checkpoint="last", etas=[1])
    assert [record.metrics for record in bare.rounds] == [r.metrics for r in plain.rounds]
    assert [record.rewards for record in bare.evaluations] == [
        record.rewards for record in plain.evaluations
    ]
    assert bare.status.counts == plain.status.counts
    assert [record.validation for record in bare.evaluations] == [[], []]
    assert bare.samplers == []


def test_test_scores_do_not_change_what_is_kept(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, plain: Cell
) -> None:
    evaluate = Evaluator.evaluate
    signs = iter([1, -1] if plain.picked.round == 2 else [-1, 1])

    def against_the_choice(self: Evaluator) -> Evaluation:
        found = evaluate(self)
        value = 1e6 * next(signs, 0)
        rewards = {name: [[value] * 2] * 2 for name in found.rewards}
        return dataclasses.replace(found, rewards=rewards)

    monkeypatch.setattr(Evaluator, "evaluate", against_the_choice)
    spoilt = run_one(tmp_path / "spoilt", tiny_model)
    assert spoilt.picked.rewards != plain.picked.rewards
    assert spoilt.picked.round == plain.picked.round
    assert same_weights(spoilt, plain) and pictures(spoilt) == pictures(plain)


def test_the_same_cell_gives_the_same_bits(tmp_path: Path, tiny_model: Path, plain: Cell) -> None:
    again = run_one(tmp_path / "again", tiny_model)
    for one, other in zip(again.evaluations, plain.evaluations, strict=True):
        assert (one.rewards, one.validation) == (other.rewards, other.validation)
    assert again.samplers[0].rewards == plain.samplers[0].rewards
    assert same_weights(again, plain)


def test_controls_pick_nothing_and_best_of_n_has_one_sampler(
    tmp_path: Path, tiny_model: Path
) -> None:
    base = run_one(tmp_path / "base", tiny_model, "base--none--s0")
    best = run_one(tmp_path / "best", tiny_model, "best-of-n--colourfulness--s0")
    assert [record.validation for record in (*base.evaluations, *best.evaluations)] == [[], []]
    assert [record.eta for record in base.samplers] == [0.0]
    assert best.samplers == []


def test_without_noise_only_the_initial_noise_decides(tmp_path: Path, tiny_model: Path) -> None:
    torch.manual_seed(1)
    first = run_one(tmp_path / "first", tiny_model, "base--none--s0", etas=[0, 1])
    torch.manual_seed(2)
    other = run_one(tmp_path / "other", tiny_model, "base--none--s0", etas=[1, 0])
    assert first.picked.rewards == other.samplers[0].rewards
    assert first.samplers[0].rewards == other.picked.rewards
