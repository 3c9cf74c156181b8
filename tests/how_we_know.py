"""The page ``docs/how-we-know.md``: every check that ends in a number, as the tests measured it.

A test takes the fixture ``evidence`` and states a figure; it passes if the figure is within its
tolerance and the page has the same check. ``python -m pytest --how-we-know=docs/how-we-know.md``
runs those tests alone and writes the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-we-know.md"
COMMAND = "python -m pytest --how-we-know=docs/how-we-know.md"

Record = Callable[[str, float, float, str], None]
"""The fixture ``evidence(name, figure, tolerance, formula)``, see ``tests/conftest.py``."""

INTRODUCTION = f"""\
# How we know

Every check of the tests that ends in a number: against a formula, against another program's
numbers, against finite differences, or against the same computation done another way. Each row is
measured by the test it names, and the test fails where the figure is above *at most*. Figures are
distances, so smaller is better, and 0 means equal in every bit or count; where a test measures
several cases, the row has the worst of them. Other machines round otherwise, within *at most*.

The page is written by `{COMMAND}` and not by hand. A test
run fails where the page lacks a check, or has another tolerance, formula or test for it.
"""
HEADER = "| check | figure | at most | what is compared | test |\n|---|---|---|---|---|\n"
TITLES = {
    "diffusion": "The decision process",
    "methods": "Methods",
    "rewards": "Rewards",
    "results": "Statistics",
    "benchmark": "Runs",
}


@dataclass(frozen=True)
class Row:
    """One check."""

    name: str
    figure: float
    tolerance: float
    formula: str
    test: str
    """Node id of the test function, ``tests/methods/test_dag.py::test_something``."""

    def line(self) -> str:
        """The row in Markdown."""
        file, _, function = self.test.partition("::")
        cells = [
            _escaped(self.name),
            f"{self.figure:.1e}" if self.figure else "0",
            f"{self.tolerance:g}",
            f"`{_escaped(self.formula)}`",
            f"[{function}](../{file})",
        ]
        return f"| {' | '.join(cells)} |\n"


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of two tensors of a shape, over one plus the largest value expected."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / (1 + expected.abs().max()))


def relative_distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of two tensors of a shape, over the largest value expected."""
    largest = float(expected.detach().abs().max())
    return distance(actual, expected) * (1 + largest) / largest


class OutOfDate(AssertionError):
    """The page is not what the tests measure."""

    def __init__(self, what: str) -> None:
        super().__init__(f"docs/how-we-know.md is out of date, {what}: run `{COMMAND}`")


class Evidence:
    """Rows by name; of several figures for a name the largest stays."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, row: Row) -> Row:
        """Records a figure; raises ``AssertionError`` if it is above its tolerance, or if the name
        stands for something else already."""
        for text in (row.name, row.formula):
            assert text.strip() == text and text and not set(text) & set("\n`\\"), repr(text)
        assert float(f"{row.tolerance:g}") == row.tolerance, "a tolerance has six digits at most"
        assert math.isfinite(row.figure) and 0 <= row.figure <= row.tolerance, (
            f"{row.name}: {row.figure:.3g} is not within {row.tolerance:g} ({row.formula})"
        )
        known = self.rows.get(row.name, row)
        same = (known.tolerance, known.formula, known.test) == (
            row.tolerance,
            row.formula,
            row.test,
        )
        assert same, f"{row.name!r} is the name of another check: {known}"
        self.rows[row.name] = max(known, row, key=lambda each: each.figure)
        return self.rows[row.name]


def compare(row: Row, page: dict[str, Row]) -> None:
    """Raises ``OutOfDate`` unless the page has the row; figures may differ as machines do."""
    written = page.get(row.name)
    if written is None:
        raise OutOfDate(f"it lacks {row.name!r}")
    if (written.tolerance, written.formula) != (row.tolerance, row.formula):
        raise OutOfDate(f"{row.name!r} has another tolerance or formula")
    if written.test != row.test:
        raise OutOfDate(f"{row.name!r} names another test")
    if not written.figure <= row.tolerance:
        raise OutOfDate(f"{row.name!r} has a figure above its tolerance")


def render(rows: Iterable[Row]) -> str:
    """The page, a section for each package that is tested."""
    sections: dict[str, list[Row]] = {package: [] for package in TITLES}
    for row in sorted(rows, key=lambda row: (row.test.partition("::")[0], row.name.lower())):
        sections[row.test.split("/")[1]].append(row)
    tables = [
        f"\n## {TITLES[package]}\n\n{HEADER}{''.join(row.line() for row in chosen)}"
        for package, chosen in sections.items()
        if chosen
    ]
    return INTRODUCTION + "".join(tables)


def parse(text: str) -> dict[str, Row]:
    """The rows of a page by name."""
    rows = {}
    for line in text.splitlines():
        cells = _cells(line)
        if len(cells) == 5 and "](../" in cells[4]:
            name, figure, tolerance, formula, link = cells
            function, _, file = link.strip("[)").partition("](../")
            row = Row(
                name, float(figure), float(tolerance), formula.strip("`"), f"{file}::{function}"
            )
            rows[name] = row
    return rows


def read(path: Path = PAGE) -> dict[str, Row]:
    """The rows of the page as it is; none where there is no page."""
    return parse(path.read_text(encoding="utf-8")) if path.exists() else {}


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _cells(line: str) -> list[str]:
    """Cells of a Markdown table's row, unescaped; none for other lines."""
    if not line.startswith("| "):
        return []
    hidden = line.replace("\\|", "\0")
    return [cell.strip().replace("\0", "|") for cell in hidden.strip("| ").split(" | ")]
