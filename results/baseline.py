"""What a regression gate keeps of a results folder: raw values, a line of history for each change.

A *comparison* is one measure of one group of cells: the seeds of a method on a reward. Its raw
values are stored by seed, so that a later program can test them another way. The file also keeps
the oldest values, against which slow drift shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from results.record_text import ResultsError, parse
from results.records import Environment, Record

BASELINE_VERSION = 1
"""Version of the file; any other is refused."""

Direction = Literal["higher", "lower"]


class Sample(Record):
    """Raw values of one comparison."""

    direction: Direction
    """Which values are better."""
    unit: str
    margin: float = Field(ge=0, allow_inf_nan=False)
    """Largest loss that is none: in ``unit``, of the mean."""
    values: dict[str, float]
    """By repetition: ``s0``, ``s1`` ... of training seeds, the file of other measurements."""


class Group(Record):
    """Cells that differ in their seed alone."""

    hardware: str
    """Class of machine: ``cpu``, or the name of a GPU."""
    conditions: dict[str, str] = Field(default_factory=dict)
    """What two groups must have in common to be compared: protocol, budget, model."""
    settings: dict[str, str] = Field(default_factory=dict)
    """Options of the method: where they differ the numbers are compared, and it is said."""
    samples: dict[str, Sample]
    """By the name of the measure, ``reward style``."""


class Golden(Record):
    """Numbers of the first updates of single cells; see ``results.golden``."""

    machine: str
    """Processor, threads and version of torch, on which the bits depend."""
    cells: dict[str, dict[str, float]]
    """Cell id to name to number."""


class Snapshot(Record):
    """Measured at one time, at one commit."""

    environment: Environment | None
    groups: dict[str, Group]
    golden: Golden | None = None


class Change(Record):
    """A line of the history."""

    date: str
    """ISO 8601, UTC."""
    commit: str | None
    reason: str
    verdicts: dict[str, int] = Field(default_factory=dict)
    """How many comparisons with the values it replaced had each verdict."""
    kept_oldest: bool = False
    """Whether drift is still reckoned from the values of before."""


class Baseline(Record):
    """The file. Written by ``gate --update`` alone."""

    baseline_version: int = BASELINE_VERSION
    kind: Literal["run", "speed"]
    """Quality by a results folder, or seconds by pytest-benchmark."""
    margin: float = Field(ge=0, allow_inf_nan=False)
    """Share of each measure's scale that is no loss yet; margins in ``unit`` follow from it."""
    last: Snapshot
    oldest: Snapshot | None = None
    """The first values, where ``last`` has replaced them."""
    history: list[Change] = Field(default_factory=list)


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises ResultsError for a file that is not there, damaged, or of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ResultsError(f"{path}: cannot be read: {reason}") from error
    # Looked at first: with another version, other fields are to be expected.
    version = re.search(r'"baseline_version":\s*(\d+)', text)
    if version and int(version[1]) != BASELINE_VERSION:
        raise ResultsError(
            f"{path}: baseline version {version[1]}, but this program reads {BASELINE_VERSION}"
        )
    return parse(path, text, Baseline)


def check_complete(groups: dict[str, Group], problems: Iterable[str]) -> None:
    """Raise ResultsError where values are missing or not finite: no baseline is made of those."""
    found = list(problems)
    found += [
        f"{name}: {measure} of {repetition} is not finite"
        for name, group in groups.items()
        for measure, sample in group.samples.items()
        for repetition, value in sample.values.items()
        if not math.isfinite(value)
    ]
    if not groups:
        found.append("nothing was measured")
    if found:
        raise ResultsError(f"no baseline is made of this: {'; '.join(found)}")
