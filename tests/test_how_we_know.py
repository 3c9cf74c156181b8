"""The page of evidence is what the tests measure, and says so when it is not."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import how_we_know
from tests.how_we_know import Evidence, OutOfDate, Row, distance, relative_distance

ROW = Row("log ratio", 2e-8, 1e-6, "|log p - log p_old|", "tests/methods/test_x.py::test_ratio")


def evidence_of(path: Path) -> set[str]:
    """Test functions of a file that take the fixture."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if "evidence" in [argument.arg for argument in f.args.args]}


def test_every_row_names_a_test_that_gives_evidence() -> None:
    rows = how_we_know.read()
    assert rows
    for row in rows.values():
        file, _, function = row.test.partition("::")
        assert function in evidence_of(how_we_know.ROOT / file), row
        assert row.figure <= row.tolerance, row


def test_the_page_is_written_by_the_command() -> None:
    text = how_we_know.PAGE.read_text(encoding="utf-8")
    assert how_we_know.render(how_we_know.parse(text).values()) == text


def test_a_row_survives_the_page() -> None:
    other = dataclasses.replace(ROW, name="grey | white", figure=0.0, tolerance=0.0)
    assert how_we_know.parse(how_we_know.render([ROW, other])) == {
        ROW.name: ROW,
        other.name: other,
    }


def test_distance() -> None:
    assert distance(torch.tensor([1.0, 5.0]), torch.tensor([1.5, 4.0])) == 1.0 / 5.0
    near = relative_distance(torch.tensor([1e-3, 2e-3]), torch.tensor([1e-3, 1e-3]))
    assert near == pytest.approx(1.0)
    with pytest.raises(AssertionError):
        distance(torch.zeros(2), torch.zeros(1))


def test_the_worst_case_is_kept() -> None:
    evidence = Evidence()
    for figure in (2e-8, 5e-7, 1e-8):
        evidence.add(dataclasses.replace(ROW, figure=figure))
    assert evidence.rows[ROW.name].figure == 5e-7


@pytest.mark.parametrize("figure", [2e-6, float("nan"), float("inf"), -1e-9])
def test_a_figure_above_its_tolerance_fails(figure: float) -> None:
    with pytest.raises(AssertionError, match="log ratio: .* is not within 1e-06"):
        Evidence().add(dataclasses.replace(ROW, figure=figure))


def test_a_tolerance_is_one_that_the_page_can_state() -> None:
    with pytest.raises(AssertionError, match="six digits"):
        Evidence().add(dataclasses.replace(ROW, tolerance=1 / 3))


@pytest.mark.parametrize("change", [{"tolerance": 1e-5}, {"formula": "x"}, {"test": "tests/y::z"}])
def test_a_name_stands_for_one_check(change: dict[str, Any]) -> None:
    evidence = Evidence()
    evidence.add(ROW)
    with pytest.raises(AssertionError, match="the name of another check"):
        evidence.add(dataclasses.replace(ROW, **change))


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ([], "lacks 'log ratio'"),
        ([dataclasses.replace(ROW, tolerance=1e-5)], "another tolerance or formula"),
        ([dataclasses.replace(ROW, formula="0")], "another tolerance or formula"),
        ([dataclasses.replace(ROW, test="tests/y.py::z")], "names another test"),
        ([dataclasses.replace(ROW, figure=1.0)], "a figure above its tolerance"),
    ],
)
def test_a_page_out_of_date_fails(written: list[Row], what: str) -> None:
    with pytest.raises(OutOfDate, match=what):
        how_we_know.compare(
            dataclasses.replace(ROW, figure=2e-7), {row.name: row for row in written}
        )


def test_figures_may_differ_as_machines_do() -> None:
    for figure in (0.0, 9e-8, 1e-6):
        how_we_know.compare(dataclasses.replace(ROW, figure=figure), {ROW.name: ROW})


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_page_follows_the_tests(tmp_path: Path) -> None:
    """In a copy of its own: written, up to date, lacking a row, and with a row too many."""
    own = Path(__file__).parent
    for folder in ("docs", "tests/methods"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("__init__.py", "conftest.py", "how_we_know.py"):
        (tmp_path / "tests" / file).write_bytes((own / file).read_bytes())
    test = tmp_path / "tests" / "methods" / "test_one.py"
    body = "def test_one(evidence):\n    evidence('a', 1e-9, 1e-6, 'a = b')\n"
    page = tmp_path / "docs" / "how-we-know.md"
    test.write_text(body + "\ndef test_none():\n    raise AssertionError\n")
    done = run_pytest(tmp_path, "--how-we-know", "docs/how-we-know.md", "tests")
    assert done.returncode == 0, done.stdout
    assert list(how_we_know.read(page)) == ["a"]
    test.write_text(body)
    assert run_pytest(tmp_path, "tests").returncode == 0
    test.write_text(body + "    evidence('b', 0, 0, 'b = c')\n")
    done = run_pytest(tmp_path, "tests")
    assert done.returncode == 1 and "it lacks 'b': run `python -m pytest --how" in done.stdout
    test.write_text(body.replace("'a',", "'b',"))
    page.write_text(page.read_text().replace("| a |", "| b |"), encoding="utf-8")
    assert run_pytest(tmp_path, "tests").returncode == 0
    test.write_text("import pytest\ndef test_one(evidence):\n    pytest.skip('not here')\n")
    assert run_pytest(tmp_path, "tests").returncode == 0
    test.write_text("def test_one(evidence):\n    pass\n")
    done = run_pytest(tmp_path, "tests")
    assert done.returncode == 1 and "no test measures 'b' any more" in done.stdout
