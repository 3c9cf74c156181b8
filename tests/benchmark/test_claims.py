"""Claims: one process of many has a cell, and only that of a dead one is taken over."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark import claims
from benchmark.claims import Claims
from results import store

CELLS = [f"ddpo--style--s{seed}" for seed in range(40)]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of_another_machine(folder: Path, cell_id: str) -> Path:
    """A claim whose process cannot be seen from here."""
    claim = Claims(folder)._own(os.getpid()).model_copy(update={"run": "x", "place": "elsewhere"})
    path = claims.path(folder, cell_id)
    store.write_json(path, claim)
    return path


def take_all(folder: Path, start: Any, taken: Any) -> None:
    """Body of a process: takes what it can of all cells, all processes from the same moment on."""
    mine = Claims(folder)
    start.wait()
    taken.put([cell_id for cell_id in CELLS if mine.take(cell_id)])
    start.wait()  # lives until all others have tried


def raced(folder: Path, processes: int = 4) -> list[str]:
    """Cells that processes took which all wanted all of them."""
    context = multiprocessing.get_context("spawn")
    start, taken = context.Barrier(processes), context.Queue()
    racers = [
        context.Process(target=take_all, args=(folder, start, taken)) for _ in range(processes)
    ]
    for racer in racers:
        racer.start()
    found = [cell_id for _ in racers for cell_id in taken.get(timeout=60)]
    for racer in racers:
        racer.join(60)
    return sorted(found)


def test_of_many_processes_one_has_a_cell_that_of_a_dead_one_too(tmp_path: Path) -> None:
    assert raced(tmp_path) == sorted(CELLS)
    # All who held them have ended.
    assert claims.living(tmp_path) == {}
    assert raced(tmp_path) == sorted(CELLS)


def test_a_claim_holds_until_it_is_given_back(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path), Claims(tmp_path)
    assert mine.take(CELLS[0]) and not other.take(CELLS[0])
    assert list(claims.living(tmp_path)) == CELLS[:1]
    assert f"process {os.getpid()}" in claims.living(tmp_path)[CELLS[0]]
    other.release(CELLS[0])  # what one does not hold stays
    assert not other.take(CELLS[0])
    mine.release(CELLS[0])
    assert other.take(CELLS[0])


def test_a_cell_lives_as_long_as_one_of_its_processes(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path), Claims(tmp_path)
    claim = mine._own(os.getpid())
    (start,) = claim.processes.values()
    path = claims.path(tmp_path, CELLS[0])
    # Its run has died, the process of the cell has not yet.
    store.write_json(
        path, claim.model_copy(update={"processes": {dead_process(): 1.0, os.getpid(): start}})
    )
    assert not other.take(CELLS[0])
    # The number has been given to another process since.
    store.write_json(path, claim.model_copy(update={"processes": {os.getpid(): start - 1}}))
    assert other.take(CELLS[0])


def test_a_claim_of_another_machine_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of_another_machine(tmp_path, CELLS[0])
    monkeypatch.setattr(claims, "DEAD_SECONDS", 0.3)
    mine = Claims(tmp_path)
    os.utime(path, (0, 0))  # its clock may show anything
    assert not mine.take(CELLS[0])
    time.sleep(0.2)
    os.utime(path, (100, 100))  # it lives
    assert not mine.take(CELLS[0])
    time.sleep(0.2)
    assert not mine.take(CELLS[0])
    time.sleep(0.2)
    assert mine.take(CELLS[0])


def test_one_that_stood_still_too_long_learns_that_it_has_lost(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    assert mine.take(CELLS[0]) and mine.take(CELLS[1])
    assert mine.beat() == []
    of_another_machine(tmp_path, CELLS[0])
    assert mine.beat() == []  # not due yet
    mine._beaten = -claims.BEAT_SECONDS
    assert mine.beat() == [CELLS[0]]
    mine.release(CELLS[0])
    assert claims.path(tmp_path, CELLS[0]).exists()


def test_a_claim_that_is_being_written_is_somebody_s(tmp_path: Path) -> None:
    path = claims.path(tmp_path, CELLS[0])
    path.parent.mkdir()
    path.touch()
    assert not Claims(tmp_path).take(CELLS[0])
    assert claims.living(tmp_path) == {CELLS[0]: "a process that starts"}
