"""``benchmark status``: which cells of a run are done, and what has become of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from benchmark import run_folder, standing
from benchmark.errors import NothingToReport
from benchmark.standing import TOLD, CellStanding
from benchmark.terminal import print_table
from results import store
from results.record_text import ResultsError
from results.records import RunRecord
from results.states import FAILURES, words

STYLES = {
    "done": "green",
    "failed": "red",
    "diverged": "red",
    "timed_out": "red",
    "stale": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}
MOST_NOTES = 20
"""Cells of one state that are told of one by one."""


def show(folder: Path | None) -> None:
    """Print the coverage of a run, by default of the latest one.

    Raises ``NothingToReport`` for a folder without a run.
    """
    path = folder or run_folder.latest()
    record = read_record(path)
    try:
        cells = standing.read(path, record, standing.by_source(record))
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    print(f"run {path}")
    print_table(_matrix(record, cells))
    for line in _notes(cells):
        print(line)
    print(total(cells))


def read_record(folder: Path) -> RunRecord:
    """What was asked of a run; raises ``NothingToReport`` for a folder without one, and for a cell
    id that is none, which could lead out of the folder."""
    path = folder / "run.json"
    if not path.is_file():
        raise NothingToReport(f"{folder}: not a results folder (there is no run.json in it)")
    try:
        record = store.read_json(path, RunRecord)
        for cell_id in record.cells:
            store.parts(folder, cell_id)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    return record


def total(cells: Mapping[str, CellStanding]) -> str:
    """How many cells are in which state."""
    counts = Counter(cell.state for cell in cells.values())
    told = ", ".join(f"{counts[state]} {words(state)}" for state in TOLD if counts[state])
    return f"{len(cells)} cells: {told}" if cells else "no cells"


def _matrix(record: RunRecord, cells: Mapping[str, CellStanding]) -> Table:
    """Methods by rewards; in each field the seeds of each state."""
    fields: dict[str, dict[str, dict[str, list[int]]]] = {}
    for cell_id, cell in cells.items():
        method, reward, seed = cell_id.split("--")
        states = fields.setdefault(method, {}).setdefault(reward, {})
        states.setdefault(cell.state, []).append(int(seed[1:]))
    rewards = list(dict.fromkeys(reward for row in fields.values() for reward in row))
    table = Table(title=f"suite {escape(record.suite)}, protocol {record.protocol}; seeds by state")
    for heading in ("method", *rewards):
        table.add_column(escape(heading))
    for method, row in fields.items():
        table.add_row(escape(method), *(_field(row.get(reward, {})) for reward in rewards))
    return table


def _field(states: Mapping[str, list[int]]) -> str:
    parts = []
    for state in TOLD:
        if state in states:
            text = f"{words(state)} {ranges(states[state])}"
            style = STYLES.get(state, "dim")
            parts.append(f"[{style}]{text}[/{style}]")
    return "\n".join(parts)


def ranges(seeds: list[int]) -> str:
    """``0-2,5``."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def _notes(cells: Mapping[str, CellStanding]) -> list[str]:
    """Who runs what, why cells ended without results or do not apply, and what went wrong on the
    way without harm, such as a damaged checkpoint."""
    lines = []
    for state in ("running", "interrupted", *FAILURES):
        found = [(name, cell.note) for name, cell in cells.items() if cell.state == state]
        lines += [_one_line(f"{words(state)} {name}: {note}") for name, note in found[:MOST_NOTES]]
        if len(found) > MOST_NOTES:
            lines.append(f"... and {len(found) - MOST_NOTES} more {words(state)}")
    told = [(name, note) for name, c in cells.items() if c.status for note in c.status.notes]
    lines += [_one_line(f"note {name}: {note}") for name, note in told[:MOST_NOTES]]
    refused = Counter(cell.note for cell in cells.values() if cell.state == "not_applicable")
    return lines + [_one_line(f"not applicable: {reason}") for reason in refused]


def _one_line(text: str) -> str:
    """Without line breaks and other characters that a terminal obeys."""
    return "".join(c if c.isprintable() else " " for c in text).removesuffix(": ")
