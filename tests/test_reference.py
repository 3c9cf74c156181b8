"""The reference results in the repository are read like any run, and their tables are theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import suite
from benchmark.models import find_model
from benchmark.protocol import Protocol, digest, model_identity
from reports.tables import write_tables
from results import store
from results.store import Run

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
TABLES = sorted((REFERENCE / "tables").glob("*.md"))


@pytest.fixture(scope="module")
def reference() -> Run:
    return store.read_run(REFERENCE / "emoji")


@pytest.fixture(scope="module")
def written(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tables made from the results."""
    folder = tmp_path_factory.mktemp("tables")
    write_tables(reference, folder)
    return folder


def test_there_are_tables() -> None:
    assert {"scores.md", "comparisons.md", "matched.md"} <= {path.name for path in TABLES}


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_a_table_is_that_of_the_results(table: Path, written: Path) -> None:
    assert (written / table.name).read_text() == table.read_text()


def test_all_cells_are_done(reference: Run) -> None:
    states = {cell.status.state for cell in reference.cells.values()}
    assert states == {"done", "not_applicable"}


def test_they_were_measured_as_the_suite_measures_now(reference: Run) -> None:
    checked = suite.check(*suite.read("emoji"))
    model = model_identity(checked.model.name, find_model(checked.model.name))
    found = reference.record.protocol_content
    assert digest(found["conditions"]) == digest(Protocol(checked, model, {}, {}).conditions)
    assert found["suite_version"] == checked.version
