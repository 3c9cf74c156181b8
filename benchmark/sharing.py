"""Cells still to run, of which other runs on the folder may take some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import standing
from benchmark.claims import Claims
from benchmark.jobs import CellJob
from benchmark.progress import CellProgress
from results.record_text import ResultsError
from results.records import StatusRecord
from results.states import FAILURES

OnProgress = Callable[[str, CellProgress], None]


@dataclass
class SharedCells:
    """Hands out cells, each claimed first, until all are done here or elsewhere."""

    folder: Path
    seen: Mapping[str, StatusRecord | None]
    """Cells to run in order, with their status when that was decided: another one since is the
    work of another run."""
    job_of: Callable[[str], CellJob]
    """Makes a claimed cell's folder ready to run in."""
    on_progress: OnProgress
    claims: Claims = field(init=False)
    waiting: list[str] = field(init=False)
    not_begun: dict[str, StatusRecord] = field(default_factory=dict)
    """Cells that could not even begin, as on a full disk; nothing on the disk says so."""

    def __post_init__(self) -> None:
        self.claims = Claims(self.folder)
        self.waiting = list(self.seen)

    def take(self) -> CellJob | None:
        """A cell to run now; None if there is none, or others work on all that are left."""
        for cell_id in list(self.waiting):
            # Looked at again once it is claimed: it may have ended between the two.
            try:
                if self._ended_elsewhere(cell_id) or not self.claims.take(cell_id):
                    continue
                if self._ended_elsewhere(cell_id):
                    self.claims.release(cell_id)
                    continue
                job = self.job_of(cell_id)
            except OSError as error:
                self._cannot_begin(cell_id, str(error))
                continue
            self.waiting.remove(cell_id)
            return job
        return None

    def _cannot_begin(self, cell_id: str, reason: str) -> None:
        self.claims.release(cell_id)
        self.waiting.remove(cell_id)
        self.not_begun[cell_id] = StatusRecord(state="failed", reason=reason)
        self.on_progress(cell_id, CellProgress(1.0, "failed", reason))

    def _ended_elsewhere(self, cell_id: str) -> bool:
        """Whether another run has ended the cell; it is waited for no more then."""
        if cell_id not in self.waiting:
            return True
        try:
            status = standing.status_of(self.folder, cell_id)
        except ResultsError:
            return False
        if status is None or status == self.seen[cell_id]:
            return False
        if status.state not in ("done", *FAILURES) or status.reason == "interrupted":
            return False
        self.waiting.remove(cell_id)
        self.on_progress(cell_id, CellProgress(1.0, status.state, "by another run"))
        return True

    def started(self, cell_id: str, *processes: int) -> None:
        """A cell has its processes."""
        with suppress(OSError):  # a full disk; the run's own process holds the claim
            self.claims.add_processes(cell_id, *processes)

    def ended(self, cell_id: str) -> None:
        """A cell's last status is written."""
        self.claims.release(cell_id)

    def beat(self) -> list[str]:
        """Tell others that this run lives, often; cells that they have taken over after it had
        stood still, which wait for them now."""
        lost = self.claims.beat()
        for cell_id in lost:
            self.claims.held.pop(cell_id)
            self.waiting.append(cell_id)
        return lost
