"""What can go wrong, each with its exit code, and how it is told.

Every expected failure is a :class:`BenchmarkError`, printed as one line on stderr. Anything else
is a defect of the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_CODES = {
    0: "all cells are done, or there was nothing left to do",
    2: "the run ended, but some cells failed; the others are done and reported",
    3: "nothing to report: no such run, damaged or incompatible results, too few images",
    4: "bad input: unknown name or key, malformed suite, unwritable folder, missing weights",
    5: "a method or reward does not conform; the lines before say what failed",
    6: "an untrained model differs from what a calibration has stored; the table says where",
    130: "interrupted; the same command with --out RUN finishes the rest",
}
"""Exit code to its meaning; 1 is left to defects of the program itself. ``gate`` has its own, in
``results.gate_verdicts``."""


LONGEST = 800
"""Characters of a message; what lies between its beginning and its end gives way."""


def printable(text: str) -> str:
    """Text in which control characters, and those that turn the direction of writing, are shown as
    escapes: names and values in it may be anybody's. Lines stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def shown(text: str) -> str:
    """Text as one line for a terminal, printable, with its middle cut out where it is long."""
    line = printable(" ".join(text.split()))
    if len(line) > LONGEST:
        half = LONGEST // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return line


class BenchmarkError(Exception):
    """An expected failure; the message is one line that says what to change."""

    exit_code = 4

    def __str__(self) -> str:
        return shown(super().__str__())


class UsageError(BenchmarkError):
    """Bad input, told before anything runs."""


class CellsFailed(BenchmarkError):
    """Some cells of a run failed."""

    exit_code = 2


class NothingToReport(BenchmarkError):
    """A run folder that cannot be reported."""

    exit_code = 3


class DoesNotConform(BenchmarkError):
    """A method or reward failed checks."""

    exit_code = 5


class Differs(BenchmarkError):
    """Scores of an untrained model are not those that a calibration has stored."""

    exit_code = 6


class Interrupted(BenchmarkError):
    """The user or the system asked the run to stop."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question naming the known name nearest to ``name``, and the list of all of them."""
    names = list(known)
    listed = ", ".join(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if near:
        return f"did you mean {near[0]!r}? (known: {listed})"
    return f"known: {listed}"
