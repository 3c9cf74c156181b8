"""Key and command of a cell, and what differs between cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results import differences, reproduction
from results.store import Cell, Run, read_run
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(Synthetic(tmp_path_factory.mktemp("run")).write())


def with_command(cell: Cell, command: str) -> Cell:
    assert cell.environment is not None
    return replace(cell, environment=cell.environment.model_copy(update={"command": command}))


@pytest.mark.parametrize(
    ("cell_id", "typed", "expected"),
    [
        (
            "dag--style--s1",
            "run --suite emoji --methods dag,ddpo --seeds 0-1 --out runs/x --workers 2",
            "run --suite emoji --methods dag --seeds 1 --rewards style",
        ),
        (
            "dag--style--s1",
            "run --set ddpo.learning_rate=1 --set methods.dag.beta=2 --set=budget.images=8",
            "run --set methods.dag.beta=2 --set budget.images=8"
            " --methods dag --seeds 1 --rewards style",
        ),
        (
            "base--none--s0",
            "run --rewards=style --set 'name=a b' --dry-run",
            "run --set 'name=a b' --methods base --seeds 0 --rewards style",
        ),
        ("base--none--s0", "run", "run --methods base --seeds 0"),
    ],
)
def test_the_command_of_the_run_is_cut_down_to_the_cell(
    run: Run, cell_id: str, typed: str, expected: str
) -> None:
    start = "python -m benchmark "
    cell = with_command(run.cells[cell_id], start + typed)
    assert reproduction.command(cell, run.record) == start + expected


@pytest.mark.parametrize("typed", ["python train.py --methods x", "run 'unclosed", ""])
def test_another_command_is_left_as_it_is(run: Run, typed: str) -> None:
    cell = with_command(run.cells["dag--style--s0"], typed)
    assert reproduction.command(cell, run.record) == typed


def test_the_key_is_of_all_that_decides_the_numbers(run: Run, tmp_path: Path) -> None:
    again = read_run(Synthetic(tmp_path).write())
    keys = {cell_id: reproduction.key(cell) for cell_id, cell in run.cells.items()}
    assert keys == {cell_id: reproduction.key(cell) for cell_id, cell in again.cells.items()}
    assert len(set(filter(None, keys.values()))) == sum(
        c.config is not None for c in run.cells.values()
    )
    cell = run.cells["dag--style--s0"]
    assert cell.config is not None
    changes: list[dict[str, Any]] = [
        *({"budget_images": 1}, {"method_config": {}}, {"protocol": "0"}, {"seed": 9})
    ]
    for change in changes:
        changed = replace(cell, config=cell.config.model_copy(update=change))
        assert reproduction.key(changed) != keys[cell.cell_id]
    turned = cell.config.model_copy(update={"rewards": cell.config.rewards[::-1]})
    assert reproduction.key(replace(cell, config=turned)) == keys[cell.cell_id]
    assert reproduction.key(replace(cell, config=None)) == ""


def test_cells_of_one_run_differ_in_nothing(run: Run) -> None:
    assert differences.settings(run.cells.values()) == []
    found = differences.environments(run.cells.values())
    assert {"cpu", "commit", "version of torch"} <= {each.name for each in found}
    assert not any(each.differs for each in found)


def test_what_differs_is_named_with_its_cells(run: Run) -> None:
    cells = dict(run.cells)
    cell = cells["dag--style--s0"]
    assert cell.config is not None and cell.environment is not None
    cells["dag--style--s0"] = replace(
        cell,
        config=cell.config.model_copy(
            update={"method_config": {"learning_rate": 0.02, "beta": None}, "budget_images": 7}
        ),
        environment=cell.environment.model_copy(update={"gpu": "a GPU", "dirty": True}),
    )
    settings = {each.name: each.values for each in differences.settings(cells.values())}
    assert set(settings) == {"budget_images", "dag.learning_rate", "dag.beta"}
    assert settings["dag.learning_rate"]["0.02"] == ["dag--style--s0"]
    assert settings["dag.beta"].keys() == {"none", "not set"}
    assert settings["budget_images"]["7"] == ["dag--style--s0"]
    places = differences.environments(cells.values())
    differing = {each.name: each.values for each in places if each.differs}
    assert set(differing) == {"gpu", "commit"}
    assert differing["gpu"]["a GPU"] == ["dag--style--s0"]
