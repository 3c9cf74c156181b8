"""Runs that begin in one new folder at the same moment."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from benchmark import run_folder
from benchmark.errors import UsageError
from results import store
from results.records import RunRecord
from tests.results.synthetic import Synthetic

RUNS, FOLDERS = 4, 40


def begin_all(folder: Path, record: RunRecord, start: Any, told: Any) -> None:
    """Body of a process: begins in folder after folder, all processes from the same moment on."""
    errors = []
    for number in range(FOLDERS):
        start.wait()
        try:
            run_folder.check_usable(folder / str(number), record)
            run_folder.begin(folder / str(number), record)
            errors.append("")
        except UsageError as error:
            errors.append(str(error))
    told.put((record.command, errors))


def raced(folder: Path, records: list[RunRecord]) -> dict[str, list[str]]:
    """What each of several runs was told of each folder; nothing where it began."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(len(records)), context.Queue()
    racers = [
        context.Process(target=begin_all, args=(folder, record, start, told)) for record in records
    ]
    for racer in racers:
        racer.start()
    found = dict(told.get(timeout=240) for _ in racers)
    for racer in racers:
        racer.join(60)
    return found


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return store.read_run(Synthetic(tmp_path_factory.mktemp("run")).write()).record


def test_all_runs_of_one_suite_begin(tmp_path: Path, record: RunRecord) -> None:
    records = [record.model_copy(update={"command": str(number)}) for number in range(RUNS)]
    found = raced(tmp_path, records)
    assert found == {str(number): [""] * FOLDERS for number in range(RUNS)}


def test_of_runs_with_other_settings_one_begins(tmp_path: Path, record: RunRecord) -> None:
    def of_seeds(number: int) -> RunRecord:
        settings = record.suite_config | {"seeds": [number]}
        return record.model_copy(update={"command": str(number), "suite_config": settings})

    found = raced(tmp_path, [of_seeds(number) for number in range(RUNS)])
    for number in range(FOLDERS):
        (winner,) = [run for run, errors in found.items() if not errors[number]]
        written = store.read_json(tmp_path / str(number) / "run.json", RunRecord)
        assert written.command == winner
        refused = [errors[number] for run, errors in found.items() if run != winner]
        assert all("holds a run with other settings (seeds)" in error for error in refused)


def test_a_folder_of_something_else_is_no_run_that_begins(
    tmp_path: Path, record: RunRecord
) -> None:
    (tmp_path / "cells" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="not empty and not a run folder"):
        run_folder.check_usable(tmp_path, record)
