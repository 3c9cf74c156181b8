"""How the cells of a run stand: what their status files say, who works on them, what is stale.

Imports no torch: ten thousand cells are looked through in a second or two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark import claims
from benchmark.fingerprint import fingerprint
from results import store
from results.record_text import ResultsError
from results.records import RunRecord, StatusRecord
from results.states import FAILURES, ORDER, State, words

Standing = State | Literal["stale"]
TOLD: tuple[Standing, ...] = (*ORDER[:-1], "stale", "not_applicable")
"""In which standings are told."""
MISSING: tuple[Standing, ...] = ("pending", "interrupted", "stale")
"""What every run on the folder does."""
IsStale = Callable[[str, StatusRecord], bool]
"""Whether the cell of that id would be computed otherwise now."""


@dataclass(frozen=True)
class CellStanding:
    """One cell; ``status`` is what its file says, None where there is none."""

    state: Standing
    status: StatusRecord | None = None
    note: str = ""
    """Who works on it, or why it ended as it did."""

    @property
    def key(self) -> str:
        """Of what its status file is about; empty where that is not known."""
        return self.status.key if self.status else ""


def read(folder: Path, record: RunRecord, is_stale: IsStale) -> dict[str, CellStanding]:
    """Every cell of a run folder, by id, in matrix order."""
    living = claims.living(folder)
    return {
        cell_id: read_cell(folder, cell_id, living.get(cell_id, ""), is_stale)
        for cell_id in record.cells
    }


def read_cell(folder: Path, cell_id: str, who: str, is_stale: IsStale) -> CellStanding:
    """One cell; ``who`` works on it, if anybody does."""
    try:
        status = status_of(folder, cell_id)
    except ResultsError as error:
        # A status that cannot be read proves nothing.
        return CellStanding("running" if who else "interrupted", None, who or str(error))
    if who:
        return CellStanding("running", status, who)
    if status is None:
        begun = (store.cell_folder(folder, cell_id) / "config.json").exists()
        return CellStanding("interrupted" if begun else "pending")
    if status.state == "not_applicable":
        return CellStanding(status.state, status, status.reason)
    if is_stale(cell_id, status):
        return CellStanding("stale", status, "its code or settings have changed")
    # Up to schema version 2, a cell that was interrupted was said to have failed.
    cut = status.state in ("running", "pending") or status.reason == "interrupted"
    return CellStanding("interrupted" if cut else status.state, status, status.reason)


def status_of(folder: Path, cell_id: str) -> StatusRecord | None:
    """Status of a cell; None if it has none. Raises ResultsError for a damaged one."""
    path = store.cell_folder(folder, cell_id) / "status.json"
    return store.read_json(path, StatusRecord) if path.exists() else None


def by_source(record: RunRecord) -> IsStale:
    """Stale is a cell whose code is not the present one, as far as both are known."""
    present = {}
    for method, modules in record.sources.items():
        try:
            present[method] = fingerprint(modules)
        except ValueError:  # a method that is gone
            present[method] = ""

    def is_stale(cell_id: str, status: StatusRecord) -> bool:
        now = present.get(cell_id.partition("--")[0])
        return bool(status.source) and now is not None and status.source != now

    return is_stale


def to_run(cells: Mapping[str, CellStanding], retried: Iterable[State] = ()) -> list[str]:
    """Cells that a run does, in order."""
    wanted = {*MISSING, *retried}
    return [cell_id for cell_id, cell in cells.items() if cell.state in wanted]


def sentence(cells: Mapping[str, CellStanding], retried: Iterable[State] = ()) -> str:
    """What a run does and what it leaves, in a line."""
    retried = set(retried)
    counts = Counter(cell.state for cell in cells.values())
    wanted = [state for state in TOLD if state in {*MISSING, *retried} and counts[state]]
    doing = f"{sum(counts[state] for state in wanted)} of {len(cells)} cells to run"
    if wanted:
        doing += f" ({', '.join(f'{counts[state]} {words(state)}' for state in wanted)})"
    left = []
    for state in TOLD:
        if counts[state] and state not in wanted:
            left.append(f"{counts[state]} {words(state)}")
            if state in FAILURES:
                again = "it" if counts[state] == 1 else "them"
                left[-1] += f" (kept; --retry {state.replace('_', '-')} runs {again} again)"
    return "; ".join(part for part in (doing, ", ".join(left)) if part)
