"""A table as CSV, Markdown and LaTeX.

CSV has every number in full, the ends of an interval in columns of their own; the other two have
what a reader wants, a mean with its interval rounded to the digits that the interval supports.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

from results import numbers
from results.intervals import Interval

Value = str | int | float | Interval | None

INFINITE = "\u221e"
FORMULA = tuple("=+-@\t\r")
"""What text begins with that a spreadsheet takes for a formula."""

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Not in every font encoding outside of formulas.
    **{character: f"${character}$" for character in "<>|"},
    numbers.MINUS: "$-$",
    INFINITE: r"$\infty$",
    "\u2013": "--",
    "\u00a0": "~",
}


@dataclass(frozen=True)
class Table:
    """A table: ``name`` is that of its files; every row has a value for each of ``columns``."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[Value]]
    protocol: str = ""
    """Hash of the protocol that measured it: a column of the CSV, in the caption elsewhere."""

    @property
    def heading(self) -> str:
        """The caption with the protocol."""
        return f"{self.caption} Protocol {self.protocol}." if self.protocol else self.caption

    def csv(self) -> str:
        """Numbers in full; an interval as mean, low and high; empty where there is no value."""
        wide = [
            any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))
        ]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        head = zip(self.columns, wide, strict=True)
        stamp = {"protocol": self.protocol} if self.protocol else {}
        heads = [part for name, is_wide in head for part in _heads(name, is_wide)]
        writer.writerow([*heads, *stamp])
        for row in self.rows:
            cells = zip(row, wide, strict=True)
            values = [part for value, is_wide in cells for part in _plain(value, is_wide)]
            writer.writerow([*values, *stamp.values()])
        return stream.getvalue()

    def markdown(self) -> str:
        """A pipe table below its caption."""
        lines = [list(map(_markdown, line)) for line in (self.columns, *self._shown())]
        left = [_is_text(self.rows, i) for i in range(len(self.columns))]
        lines.insert(1, ["---" if text else "---:" for text in left])
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{_markdown(self.heading)}\n\n{rows}\n"

    def latex(self) -> str:
        """A ``table`` with the rules of booktabs."""
        columns = "".join("l" if _is_text(self.rows, i) else "r" for i in range(len(self.columns)))
        head, *body = [
            " & ".join(map(_latex, line)) + r" \\" for line in (self.columns, *self._shown())
        ]
        return "\n".join(
            [
                "% needs \\usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.heading)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def _shown(self) -> list[list[str]]:
        places = [
            numbers.column_decimals(
                value for row in self.rows if isinstance(value := row[i], Interval)
            )
            for i in range(len(self.columns))
        ]
        return [[_readable(value, places[i]) for i, value in enumerate(row)] for row in self.rows]


def _heads(name: str, wide: bool) -> list[str]:
    return [name, f"{name} low", f"{name} high"] if wide else [name]


def _plain(value: Value, wide: bool) -> list[str]:
    if isinstance(value, Interval):
        return [_full(value.mean), _full(value.low), _full(value.high)]
    return [_full(value), "", ""] if wide else [_full(value)]


def _full(value: str | int | float | None) -> str:
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float):
        return repr(float(value))
    if not isinstance(value, str):
        return str(value)
    # A spreadsheet would compute text that begins like a formula; a lone return ends a row.
    text = f"'{value}" if value[:1] in FORMULA and value[1:] else value
    return text.replace("\r", " ")


def _readable(value: Value, places: int) -> str:
    if value is None or value == "":
        return "\u2013"
    if isinstance(value, Interval):
        if not value.values:
            return "\u2013"
        return f"{numbers.mean(value, places)} {numbers.bounds(value, places)}".rstrip()
    if isinstance(value, float):
        return INFINITE if value == math.inf else numbers.number(value)
    return str(value)


def _is_text(rows: Iterable[list[Value]], column: int) -> bool:
    return all(isinstance(row[column], str) for row in rows)


def _markdown(text: str) -> str:
    line = " ".join(text.split())
    # The brackets of an interval are no markup; those of a link would be.
    for character in "\\`*_<>|" + ("[]" if "](" in line else ""):
        line = line.replace(character, f"\\{character}")
    return line


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))
