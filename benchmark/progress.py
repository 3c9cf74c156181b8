"""How a run is going, in the terminal: bars in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from results.states import FAILURES, words

LEAST_SHARE = 0.02
"""Share of a run's work from which its time left is worth telling."""
LINE_SECONDS = 10.0
"""Least time between two plain lines of one cell while it trains."""


@dataclass(frozen=True)
class CellProgress:
    """How far a cell is."""

    fraction: float
    """Share of its training that is done, in [0, 1]."""
    activity: str
    """``loading``, ``training``, ``evaluating``, or the state that the cell ended in."""
    detail: str = ""
    """Rounds and images so far, or why the cell failed."""
    reward: float | None = None
    """Mean reward of the latest round or evaluation."""

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        return self.activity in ("done", *FAILURES)

    def __str__(self) -> str:
        reward = "" if self.reward is None else f"reward {self.reward:.4g}"
        return "  ".join(part for part in (words(self.activity), self.detail, reward) if part)


class Display(Protocol):
    """Shows progress between ``__enter__`` and ``__exit__``."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, cell_id: str, progress: CellProgress) -> None: ...


class Clock:
    """Time left of a run, from the shares of its cells weighted by their expected work."""

    def __init__(self, work: Mapping[str, float]) -> None:
        self.work = dict(work)
        self.fractions = dict.fromkeys(work, 0.0)
        self.finished: set[str] = set()
        self.started = time.monotonic()
        self._cell_started: dict[str, float] = {}

    def update(self, cell_id: str, progress: CellProgress) -> None:
        """Take note of how far a cell is."""
        self._cell_started.setdefault(cell_id, time.monotonic())
        self.fractions[cell_id] = 1.0 if progress.final else progress.fraction
        if progress.final:
            self.finished.add(cell_id)

    def fraction(self) -> float:
        """Share of the whole run's work that is done, in [0, 1]."""
        total = sum(self.work.values()) or 1.0
        return sum(self.work[cell] * self.fractions[cell] for cell in self.work) / total

    def left(self) -> str:
        """Time left of the run, such as ``2:05``, or ``?`` while too little of it is done."""
        fraction = self.fraction()
        return _left(fraction, self.started) if fraction >= LEAST_SHARE else "?"

    def cell_left(self, cell_id: str) -> str:
        """Time left of one cell."""
        return _left(self.fractions[cell_id], self._cell_started.get(cell_id, time.monotonic()))

    def elapsed(self) -> str:
        """Time since the run started."""
        return clock_text(time.monotonic() - self.started)


class Lines:
    """One plain line an event, at most one in ten seconds for a cell that trains."""

    def __init__(self, work: Mapping[str, float]) -> None:
        self.clock = Clock(work)
        self._printed: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, cell_id: str, progress: CellProgress) -> None:
        """Print the event, unless it would be one of too many."""
        self.clock.update(cell_id, progress)
        activity, printed = self._printed.get(cell_id, ("", 0.0))
        now = time.monotonic()
        if progress.activity == activity and now - printed < LINE_SECONDS:
            return
        self._printed[cell_id] = (progress.activity, now)
        count = f"[{len(self.clock.finished):>3}/{len(self.clock.work)}]"
        left = {"cell": self.clock.cell_left(cell_id), "run": self.clock.left()}
        if progress.final:
            del left["cell"]
        known = ", ".join(f"{what} {time} left" for what, time in left.items() if time != "?")
        print("  ".join(filter(None, (count, cell_id, str(progress), known))), flush=True)


class Bars:
    """A bar for the run and one for each running cell."""

    def __init__(self, work: Mapping[str, float], console: Console) -> None:
        self.clock = Clock(work)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._live = Live(self._bars, console=console, refresh_per_second=4)
        self._run = self._bars.add_task("run", total=1.0, left="?", note="")
        self._cells: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, cell_id: str, progress: CellProgress) -> None:
        """Move the bars; a finished cell leaves a line above them."""
        self.clock.update(cell_id, progress)
        if progress.final:
            if cell_id in self._cells:
                self._bars.remove_task(self._cells.pop(cell_id))
            self._live.console.print(f"{cell_id}  {progress}", markup=False, highlight=False)
        else:
            if cell_id not in self._cells:
                self._cells[cell_id] = self._bars.add_task(cell_id, total=1.0, left="?", note="")
            self._bars.update(
                self._cells[cell_id],
                completed=progress.fraction,
                left=self.clock.cell_left(cell_id),
                note=str(progress),
            )
        self._bars.update(
            self._run,
            completed=self.clock.fraction(),
            left=self.clock.left(),
            note=f"{len(self.clock.finished)} of {len(self.clock.work)} cells, "
            f"{self.clock.elapsed()} so far",
        )


def display(work: Mapping[str, float]) -> Display:
    """Bars if stdout is a terminal, else plain lines; ``work`` is the weight of each cell."""
    console = Console()
    return Bars(work, console) if console.is_terminal else Lines(work)


def clock_text(seconds: float) -> str:
    """``2:05``, or ``1:02:05`` from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _left(fraction: float, started: float) -> str:
    if fraction <= 0:
        return "?"
    return clock_text((time.monotonic() - started) * (1 - fraction) / fraction)
