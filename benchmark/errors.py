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
    130: "interrupted; the same command with --out RUN finishes the rest",
}
"""Exit code to its meaning; 1 is left to defects of the program itself. ``gate`` has its own, in
``results.gate_verdicts``."""


class BenchmarkError(Exception):
    """An expected failure; the message is one line that says what to change."""

    exit_code = 4

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


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
