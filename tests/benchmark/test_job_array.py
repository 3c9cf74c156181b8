"""The script for Slurm of the docs, run by bash as Slurm runs the tasks of a job array: several
runs on one folder, of which one is told to end and starts again, and another is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark import claims
from results import store
from tests.benchmark.conftest import ROOT, environment
from tests.benchmark.killing import comparable, lines, wait_for
from tests.benchmark.test_ray_run import write_points_suite

pytestmark = pytest.mark.slow

TASKS = 4
IMAGES = 32 * 400
"""Of 400 rounds, so that one has time to end two runs."""
TRAINED = "ddpo-sf--point_modes--s"


def script(folder: Path) -> Path:
    """That of the docs, for another suite and folder."""
    text = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")
    found = re.search(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    assert found
    changed = found[1].replace("--suite emoji ", "--suite points.yaml ")
    changed = changed.replace("--out runs/emoji-001 ", "--out run ")
    assert changed.count("points.yaml") == changed.count("--out run ") == 1
    path = folder / "array.sh"
    path.write_text(changed, encoding="utf-8")
    return path


def variables() -> dict[str, str]:
    """With the python of the tests as ``python``."""
    found = environment()
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"}


class Task:
    """One run, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            ["bash", "array.sh"],
            cwd=folder,
            env=variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=1800)
        return self.process.returncode, output, errors


def trained(run: Path, tasks: list[Task], but: str = "") -> tuple[Task, Path]:
    """A task whose cell has trained for some rounds, and the cell, as soon as there is one."""
    found: list[tuple[Task, Path]] = []

    def look() -> bool:
        for cell_id, who in claims.living(run).items():
            cell = store.cell_folder(run, cell_id)
            trains = cell_id.startswith(TRAINED) and lines(cell / "metrics.jsonl") >= 3
            of = [each for each in tasks if who.startswith(f"process {each.process.pid} on ")]
            if trains and of and cell_id != but:
                found.append((of[0], cell))
        for task in tasks:
            assert found or task.process.poll() is None, task.end()
        return bool(found)

    wait_for(look, seconds=1800, every=0.05)
    return found[0]


def test_a_job_array_does_each_cell_once_though_runs_end(tmp_path: Path) -> None:
    path = write_points_suite(tmp_path, images=IMAGES)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values |= {"seeds": [0, 1, 2], "checkpoint_every": 1}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    script(tmp_path)
    run, whole = tmp_path / "run", tmp_path / "whole"
    begun = [Task(tmp_path) for _ in range(TASKS)]
    tasks, ended = list(begun), []
    try:
        told, first = trained(run, tasks)
        told.process.send_signal(signal.SIGTERM)
        tasks.remove(told)
        lost, second = trained(run, tasks, but=first.name)
        os.killpg(lost.process.pid, signal.SIGKILL)
        tasks.remove(lost)

        code, output, errors = told.end()
        assert code == 130 and "--out run finishes the rest" in errors
        ended.append(output)
        begun.append(Task(tmp_path))  # as Slurm requeues it
        tasks.append(begun[-1])
        code, output, _ = lost.end()
        assert code == -signal.SIGKILL
        ended.append(output)
        for task in tasks:
            code, output, errors = task.end()
            assert code == 0, errors
            ended.append(output)
    finally:
        for task in begun:
            task.process.kill()
    found = store.read_run(run)
    assert len(found.cells) == 9
    assert {cell.status.state for cell in found.cells.values()} == {"done"}
    for name in found.cells:
        assert sum(output.count(f"{name}  done  in ") for output in ended) == 1, name
    for cut in (first, second):
        assert found.cells[cut.name].status.resumed_after
    assert not list((run / "claims").glob("*.json"))

    alone = subprocess.run(
        ["bash", "-c", "sed 's/--out run /--out whole /' array.sh | bash"],
        cwd=tmp_path,
        env=variables(),
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    for name in found.cells:
        assert comparable(run / "cells" / name) == comparable(whole / "cells" / name)
