"""What a run shows while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmark import progress
from benchmark.progress import Bars, CellProgress, Clock, Lines, clock_text, display

TRAINING = CellProgress(0.5, "training", "round 1/2", 0.25)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in a list to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_where_stdout_is_no_terminal(
    time: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with display({"a": 1.0, "b": 1.0}) as shown:
        assert isinstance(shown, Lines)
        shown.show("a", CellProgress(0.0, "loading"))
        time[0] += 8
        shown.show("a", TRAINING)
        time[0] += 1
        shown.show("a", CellProgress(0.6, "training"))  # too soon after the last
        time[0] += 1
        shown.show("a", CellProgress(1.0, "failed", "no memory"))
    assert capsys.readouterr().out.splitlines() == [
        "[  0/2]  a  loading",
        "[  0/2]  a  training  round 1/2  reward 0.25  cell 0:08 left, run 0:24 left",
        "[  1/2]  a  failed  no memory  run 0:10 left",
    ]


def test_time_left_weighs_cells_by_their_work(time: list[float]) -> None:
    clock = Clock({"small": 1.0, "large": 9.0})
    time[0] += 10
    clock.update("small", CellProgress(1.0, "done"))
    assert clock.fraction() == pytest.approx(0.1)
    assert clock.left() == "1:30"
    assert clock.cell_left("large") == "?"


def test_no_time_left_is_told_from_next_to_nothing(time: list[float]) -> None:
    clock = Clock({"small": 1.0, "large": 99.0})
    time[0] += 10
    clock.update("small", CellProgress(1.0, "done"))
    assert clock.left() == "?"
    clock.update("large", CellProgress(0.1, "training"))
    assert clock.left() == "1:22"


def test_bars_show_running_cells_and_leave_ended_ones_above(time: list[float]) -> None:
    stream = io.StringIO()
    with Bars({"a": 1.0, "b": 1.0}, Console(file=stream, force_terminal=True, width=120)) as bars:
        bars.show("a", TRAINING)
        bars.show("b", TRAINING)
        bars.show("a", CellProgress(1.0, "done", "in 3 s"))
    text = stream.getvalue()
    assert "a  done  in 3 s" in text
    last = text[text.rindex("a  done") :]
    assert "b" in last
    assert "75%" in last
    assert "1 of 2 cells" in last


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (65, "1:05"), (3661, "1:01:01")])
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
