"""What goes wrong in a run, and what becomes of the cell, of the others, and of the exit code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from benchmark import claims
from benchmark.claims import Claims
from results import store
from tests.benchmark.conftest import Command, environment, one_line_error, write_suite
from tests.benchmark.faults import BATCH, FAULTS, checkout
from tests.benchmark.test_ray_run import write_points_suite

FOUND = {
    "raises": ("failed", "RuntimeError: the judge has left"),
    "hangs": ("timed_out", "over its time limit of"),
    "misshapen": ("failed", "RuntimeError: reward 'misshapen' returned shape [6] for 7 images"),
    "not_finite": ("failed", "ValueError: reward 'not_finite' is not finite for 7 of 7 images"),
    "no_tensor": ("failed", "TypeError: reward 'no_tensor' returned list, not a tensor"),
    "hungry": ("failed", "over its memory limit of 2 GiB: "),
    "killed": ("failed", "the process was ended by SIGKILL (out of memory?); see log.txt"),
}
"""State and reason of each broken reward's cell."""
TIME_LIMIT = 60
"""Seconds; more than the other cells take."""


def run(
    folder: Path, suite: str, *options: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A run of a suite, in the folder ``run``, of a checkout."""
    variables = environment() | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmark",
            "run",
            "--suite",
            suite,
            "--out",
            "run",
            *options,
        ],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=840,
    )


def small_suite(folder: Path, model: Path, rewards: list[str]) -> None:
    """One round of training, one evaluation."""
    path = write_suite(folder, model)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["rewards"] = rewards
    values["methods"] = {
        "ddpo": {"prompts_per_round": 1, "images_per_prompt": 4, "timestep_fraction": 1.0}
    }
    values["prompts"]["train"] = ["a fox, fluent style"]
    values["budget"]["images"] = 4
    values["evaluation"] |= {"times": 1, "checkpoint": "last"}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[store.Run]:
    """A run in which the cells of all broken rewards failed."""
    folder = tmp_path_factory.mktemp("faults")
    path = write_points_suite(folder, images=BATCH)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["rewards"] = [*FAULTS, "point_modes"]
    values["methods"]["ddpo-sf"] |= {"images_per_prompt": BATCH}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    clone = tmp_path_factory.mktemp("checkout")
    limits = ("--time-limit", str(TIME_LIMIT), "--memory-limit", "2")
    done = run(folder, path.name, *limits, "--workers", "2", path=checkout(clone))
    ids = ", ".join(f"ddpo-sf--{name}--s0" for name in FAULTS)
    assert one_line_error(done, 2).startswith(f"error: {len(FAULTS)} of 17 cells failed: {ids}")
    for name in FAULTS:
        lines = [line for line in done.stdout.splitlines() if f"ddpo-sf--{name}--s0  " in line]
        state, reason = FOUND[name]
        assert f"{state.replace('_', ' ')}  {reason}" in lines[-1], lines
    yield store.read_run(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_reward_is_the_fault_of_its_cell(broken: store.Run, name: str) -> None:
    status = broken.cells[f"ddpo-sf--{name}--s0"].status
    state, reason = FOUND[name]
    assert (status.state, status.reason.startswith(reason)) == (state, True), status.reason
    assert bool(status.traceback) == reason.partition(":")[0].endswith("Error")


@pytest.mark.slow
def test_the_other_cells_are_done(broken: store.Run) -> None:
    others = {
        name: cell.status.state for name, cell in broken.cells.items() if cell.reward not in FAULTS
    } | {name: cell.status.state for name, cell in broken.cells.items() if cell.method != "ddpo-sf"}
    assert len(others) == 10
    assert set(others.values()) == {"done"}
    assert (broken.folder / "report.html").stat().st_size > 10_000


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be written meanwhile, not even by the superuser."""
    bind, remount = (["mount", "-o", how, folder, folder] for how in ("bind", "remount,bind,ro"))
    mounted = subprocess.run(bind, capture_output=True).returncode == 0
    try:
        if mounted:
            subprocess.run(remount, check=True)
        else:
            folder.chmod(0o555)
            if os.access(folder, os.W_OK):
                pytest.skip("nothing is read-only for this user, and it cannot mount")
        yield
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        else:
            folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, tiny_model: Path, benchmark_command: Command
) -> None:
    small_suite(tmp_path, tiny_model, ["colourfulness"])
    (tmp_path / "run").mkdir()
    with read_only(tmp_path / "run"):
        message = one_line_error(
            benchmark_command("run", "--suite", "tiny.yaml", "--out", "run"), 4
        )
    assert message.startswith("error: cannot write to run: ")


def test_a_cell_whose_folder_cannot_be_written_fails_alone(
    tmp_path: Path, benchmark_command: Command
) -> None:
    folder, cell = tmp_path / "run", "ddpo-sf--point_modes--s0"
    command = ("run", "--suite", write_points_suite(tmp_path, images=32), "--out", folder)
    assert benchmark_command(*command).returncode == 0
    (folder / "cells" / cell / "status.json").unlink()
    shutil.rmtree(folder / "cells" / "best-of-n--point_modes--s0")
    with read_only(folder / "cells" / cell):
        done = benchmark_command(*command)
        states = {name: each.status.state for name, each in store.read_run(folder).cells.items()}
    assert done.returncode == 2, done.stderr
    assert re.search(rf"{cell} +failed +.*(Read-only file|Permission denied)", done.stdout)
    assert f"1 of 3 cells failed: {cell}" in done.stderr
    assert states.pop(cell) != "done"
    assert set(states.values()) == {"done"}
    assert benchmark_command(*command).returncode == 0, "what could not begin is run now"


def test_a_clock_that_jumps_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a claim from another machine, whose clock or ours is a day off."""
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    assert theirs.take("cell")
    elsewhere = theirs.held["cell"].model_copy(update={"place": "another machine"})
    path = claims.path(tmp_path, "cell")
    store.write_json(path, elsewhere)
    now = time.time()
    for jump in (86_400, -86_400, 0):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        assert not ours.take("cell")
        os.utime(path, (now + jump, now + jump))  # as one with a wrong clock touches it
        assert not ours.take("cell")
    # It is taken over only once it has stood still on a clock that nobody can set.
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + claims.DEAD_SECONDS + 1)
    assert ours.take("cell")
