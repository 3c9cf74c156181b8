"""``benchmark gate``: compare new results with a baseline file, or make or change that file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from benchmark.errors import NothingToReport, UsageError
from benchmark.terminal import print_table
from reports import gate as pages
from results import gate, observed, speed, store
from results.baseline import (
    Baseline,
    Change,
    Snapshot,
    check_complete,
    read_baseline,
)
from results.gate import Comparison, Observed
from results.gate_verdicts import Verdict
from results.numbers import number
from results.record_text import ResultsError, dump

MARGIN = 0.05
"""Share of a measure's scale that is no loss, unless the baseline declares another."""


@dataclass(frozen=True)
class Outputs:
    """Files to write, each where it is named."""

    json: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None


@dataclass(frozen=True)
class Found:
    """New results, read."""

    kind: Literal["run", "speed"]
    observed: dict[str, Observed]
    snapshot: Snapshot
    run: store.Run | None


def compare(results: Sequence[Path], baseline_file: Path) -> tuple[list[Comparison], str]:
    """Every comparison of new results with a baseline, verdicts decided; the kind of both.

    ``results`` is one results folder, or files of pytest-benchmark. Raises ``UsageError`` where the
    baseline is not there, ``NothingToReport`` for anything unreadable.
    """
    baseline = _baseline(baseline_file)
    found = _read(results, baseline.margin)
    if found.kind != baseline.kind:
        raise NothingToReport(
            f"{baseline_file} is a baseline of a {baseline.kind}, the results are of a {found.kind}"
        )
    return _compare(found, baseline), baseline.kind


def _compare(found: Found, baseline: Baseline) -> list[Comparison]:
    comparisons = gate.compare(baseline.last.groups, found.observed)
    if baseline.oldest is not None:
        drift = gate.compare(baseline.oldest.groups, found.observed, "oldest")
        comparisons += [each for each in drift if each.test is not None]
    comparisons = gate.adjust(comparisons)
    if found.run is not None and _comparable(comparisons):
        compared = {each.group for each in comparisons if each.new}
        trajectories = observed.golden_comparisons(found.run, baseline.last)
        comparisons += [each for each in trajectories if each.group in compared]
    return comparisons


def _comparable(comparisons: Sequence[Comparison]) -> bool:
    """Whether trajectories of the two can be expected to agree."""
    return not any(
        each.verdict in (Verdict.PROTOCOL_CHANGED, Verdict.HARDWARE_CHANGED) for each in comparisons
    )


def report(
    comparisons: Sequence[Comparison],
    outputs: Outputs,
    advisory: bool = False,
    every: bool = False,
) -> int:
    """Print what is not a plain pass and one line of all, write the files; the exit code.

    ``advisory`` regressions do not fail; with ``every`` what passes is printed too.

    Raises ``UsageError`` where a file cannot be written.
    """
    code = gate.exit_code(comparisons, advisory)
    shown = [each for each in comparisons if every or each.verdict is not Verdict.PASS]
    if shown:
        print_table(_table(shown))
    print(f"gate: {pages.summary(comparisons, code)}")
    for path, render in (
        (outputs.json, pages.as_json),
        (outputs.markdown, pages.as_markdown),
        (outputs.junit, pages.as_junit),
    ):
        if path is not None:
            _write(path, render(comparisons, code))
    return code


def _table(comparisons: Sequence[Comparison]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("verdict", "what", "better by [90 %]", "margin", "p, Holm", "detail"):
        table.add_column(heading, overflow="fold")
    for each in comparisons:
        margin = number(each.margin) if math.isfinite(each.margin) else ""
        cells = (str(each.verdict), each.name, pages.difference(each), margin, pages.p_of(each))
        # What stands in a results folder is neither markup nor for the terminal to obey.
        table.add_row(*(Text(pages.printable(cell)) for cell in (*cells, each.detail)))
    return table


def update(
    results: Sequence[Path],
    baseline_file: Path,
    reason: str,
    margin: float | None,
    forget_oldest: bool,
) -> None:
    """Make the baseline file, or replace its values, and write why into its history.

    The values replaced become the oldest, if there are none yet, as long as they are comparable
    with the new ones. Raises ``UsageError`` without a reason, ``NothingToReport`` where a cell has
    failed or a value is not finite.
    """
    if not reason.strip():
        raise UsageError("--update needs --reason: why the numbers changed, for the file's history")
    before = _baseline(baseline_file) if baseline_file.exists() else None
    declared = margin if margin is not None else before.margin if before else MARGIN
    found = _read(results, declared)
    if before is not None and before.kind != found.kind:
        raise UsageError(
            f"{baseline_file} is a baseline of a {before.kind}, the results are of a {found.kind}"
        )
    try:
        check_complete(found.snapshot.groups, observed.problems(found.observed))
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    comparisons = _compare(found, before) if before else []
    oldest = None if forget_oldest or before is None else _oldest(before, comparisons)
    change = Change(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(found.snapshot),
        reason=" ".join(reason.split()),
        verdicts=pages.counts(comparisons),
        kept_oldest=oldest is not None,
    )
    history = [*(before.history if before else []), change]
    changed = Baseline(
        kind=found.kind, margin=declared, last=found.snapshot, oldest=oldest, history=history
    )
    _write(baseline_file, dump(changed, indent=2) + "\n")
    print(f"baseline {baseline_file}: {len(found.snapshot.groups)} groups, margin {declared:.1%}")
    if change.verdicts:
        listed = ", ".join(f"{count} {verdict}" for verdict, count in change.verdicts.items())
        print(f"against the values of before: {listed}")


def _oldest(before: Baseline, comparisons: Sequence[Comparison]) -> Snapshot | None:
    """The values from which drift is reckoned; none where they do not compare any more."""
    if not _comparable(comparisons) or not any(each.old for each in comparisons):
        return None
    oldest = before.oldest or before.last
    return oldest.model_copy(update={"golden": None})


def _commit(snapshot: Snapshot) -> str | None:
    where = snapshot.environment
    if where is None or where.commit is None:
        return None
    return where.commit + ("-dirty" if where.dirty else "")


def _baseline(path: Path) -> Baseline:
    if not path.is_file():
        raise UsageError(f"--baseline {path}: no such file; --update --reason '...' makes it")
    try:
        return read_baseline(path)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error


def _read(results: Sequence[Path], margin: float) -> Found:
    try:
        if len(results) == 1 and not results[0].is_file():
            run = store.read_run(results[0])
            groups = observed.groups(run, margin)
            return Found("run", groups, observed.snapshot(run, groups), run)
        groups = speed.groups(results, margin)
        return Found("speed", groups, speed.snapshot(groups), None)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error


def _write(path: Path, text: str) -> None:
    try:
        store.write_bytes(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
