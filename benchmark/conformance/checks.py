"""What a check is, and what running one gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """A measured figure; the check is passed if it is at most the tolerance."""

    figure: float
    """A distance or a count of violations, 0 or more."""
    tolerance: float
    problem: str = ""
    """What is wrong, in plain words, if the figure is above the tolerance."""


class NotApplicable(Exception):
    """The check asks for what the subject rightly does not have; the message says why."""


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One thing that every subject keeps."""

    name: str
    """What holds if it is passed."""
    formula: str
    """What its figure is."""
    find: Callable[[Subject], Finding]


@dataclass(frozen=True)
class Outcome:
    """The end of one check."""

    name: str
    state: Literal["passed", "FAILED", "not applicable"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.name}" + (f": {self.detail}" if self.detail else "")


class Checks(Generic[Subject]):
    """The checks of one kind of subject, in order."""

    def __init__(self) -> None:
        self.all: list[Check[Subject]] = []

    def __call__(
        self, name: str, formula: str
    ) -> Callable[[Callable[[Subject], Finding]], Check[Subject]]:
        """Decorator: makes a function a check."""

        def add(find: Callable[[Subject], Finding]) -> Check[Subject]:
            check = Check(name, formula, find)
            self.all.append(check)
            return check

        return add

    def __iter__(self) -> Iterator[Check[Subject]]:
        return iter(self.all)


def violations(problems: Iterable[str]) -> Finding:
    """How many problems there are, none being allowed; the first two are told."""
    found = list(problems)
    more = f" (and {len(found) - 2} more)" if len(found) > 2 else ""
    return Finding(len(found), 0, "; ".join(found[:2]) + more)


def judge(check: Check[Subject], subject: Subject) -> Outcome:
    """Run a check; whatever the subject raises is told in one line."""
    try:
        found = check.find(subject)
    except NotApplicable as reason:
        return Outcome(check.name, "not applicable", str(reason))
    except (Exception, SystemExit) as error:  # the subject is anybody's code
        text = " ".join(str(error).split())
        return Outcome(check.name, "FAILED", f"{type(error).__name__}: {text}".rstrip(": "))
    if math.isfinite(found.figure) and found.figure <= found.tolerance:
        return Outcome(check.name, "passed")
    limit = f"{found.figure:.3g}, at most {found.tolerance:g}" if found.tolerance else ""
    detail = found.problem + (f" ({limit})" if limit and found.problem else limit)
    return Outcome(check.name, "FAILED", detail)
