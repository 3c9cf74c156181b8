"""Cells as tasks of a Ray cluster of this machine alone."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

import benchmark
from benchmark import claims, suite
from results import store
from tests.benchmark.conftest import Command, one_line_error
from tests.benchmark.killing import comparable, wait_for

BASE, BEST = "base--none--s0", "best-of-n--point_modes--s0"
RETRIES_AND_ONE = 4
"""Kills that are more than Ray makes good."""
TRAINED = "ddpo-sf--point_modes--s0"


def write_points_suite(folder: Path, images: int = 64) -> Path:
    """The suite ``mixture``, made small: each round has 32 images."""
    values = yaml.safe_load((suite.FOLDER / "mixture.yaml").read_text(encoding="utf-8"))
    values["name"] = "points"
    values["model"]["sampling_steps"] = 4
    values["rewards"] = ["point_modes"]
    options = {"prompts_per_round": 1, "images_per_prompt": 32, "micro_batch_size": 32}
    values["methods"] = {"ddpo-sf": options}
    values["seeds"] = [0]
    values["budget"]["images"] = images
    values["evaluation"] |= {"images_per_prompt": 16, "times": 1, "exact_points": 2000}
    path = folder / "points.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def hide_folder(run: Path, over: threading.Event) -> None:
    """What a node sees that does not share the folder of the run: no token in it."""
    while not over.is_set():
        for token in run.glob(".shared-*"):
            token.unlink(missing_ok=True)
        time.sleep(0.005)


@pytest.fixture
def other_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray knows of a cluster on this machine, which does not answer: no run may join it unasked."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:  # for sockets, short
        monkeypatch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        yield


def test_results_of_cells_come_back_from_a_node_with_another_disk(
    benchmark_command: Command, tmp_path: Path, other_cluster: None
) -> None:
    run = tmp_path / "run"
    over = threading.Event()
    hiding = threading.Thread(target=hide_folder, args=(run, over))
    hiding.start()
    settings = ("--suite", write_points_suite(tmp_path), "--methods", "base", "--out", run)
    try:
        done = benchmark_command("run", *settings, "--executor", "ray", "--workers", "1")
    finally:
        over.set()
        hiding.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    found = store.read_run(run)
    assert list(found.cells) == [BASE, BEST]
    for cell in found.cells.values():
        assert cell.status.state == "done"
        assert cell.status.key and cell.environment is not None
        assert f"1 threads: {cell.cell_id}" in (cell.folder / "log.txt").read_text()
    assert claims.living(run) == {}
    assert not list(run.rglob(".*"))


@pytest.mark.slow
def test_two_processes_of_a_node_train_a_cell_as_two_of_this_machine(
    benchmark_command: Command, tmp_path: Path, other_cluster: None
) -> None:
    settings = ("--suite", write_points_suite(tmp_path), "--set", "model.processes=2")
    # Ray counts the cores of this machine, and one may be all there is.
    ray = ("--executor", "ray", "--cpus-per-cell", "1", "--workers", "1")
    for name, options in {"local": ("--workers", "1"), "ray": ray}.items():
        done = benchmark_command("run", *settings, "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stdout + done.stderr
    cells = [tmp_path / name / "cells" / TRAINED for name in ("local", "ray")]
    local, here = (store.read_cell(cell.parents[1], TRAINED) for cell in cells)
    assert here.config is not None and here.config.model["processes"] == 2
    assert here.status.key == local.status.key
    assert comparable(cells[1]) == comparable(cells[0])
    assert (cells[1] / "log.txt").read_text().count("process ") == 1
    assert claims.living(tmp_path / "ray") == {}


def processes_of_post() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [each for each in found if each.name().startswith("ray::Post")]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, RETRIES_AND_ONE])
def test_the_post_is_replaced_and_its_loss_is_a_line(
    benchmark_command: Command, tmp_path: Path, other_cluster: None, kills: int
) -> None:
    """SIGKILL to the process that passes on what cells tell, while one trains."""
    run, over = tmp_path / "run", threading.Event()
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: (run / "cells" / TRAINED / "metrics.jsonl").exists(), seconds=600)
        while len(killed) < kills and not over.wait(0.2):
            for process in processes_of_post():
                if process.pid not in killed:
                    killed.append(process.pid)
                    process.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    rounds = 300 if kills == 1 else 10_000  # more than there is time for
    suite = write_points_suite(tmp_path, images=32 * rounds)
    try:
        done = benchmark_command("run", "--suite", suite, "--out", run, "--executor", "ray")
    finally:
        over.set()
        killing.join()
    assert len(killed) == kills
    cell = store.read_cell(run, TRAINED)
    if kills == 1:
        assert done.returncode == 0, done.stdout + done.stderr
        assert cell.status.state == "done"
        return
    message = one_line_error(done, 130)
    assert "Ray's cluster does not work any more: ActorDiedError" in message
    assert "--out run finishes the rest" in message.replace(str(tmp_path) + "/", "")
    assert cell.status.state == "interrupted" and cell.rounds
    assert claims.living(run) == {}


def test_without_ray_the_command_is_named(
    benchmark_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("ray_executor", "ray_cell"):
        monkeypatch.delitem(sys.modules, f"benchmark.{name}", raising=False)
        monkeypatch.delattr(benchmark, name, raising=False)
    message = one_line_error(benchmark_command("run", "--executor", "ray"), 4)
    assert message.endswith("--executor ray needs the package ray: pip install -e '.[ray]'")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--address", "auto"], "--address auto: only with --executor ray"),
        (["--executor", "slurm"], "'--executor': 'slurm' is not one of"),
        (["--cpus-per-cell", "0"], "cpus_per_cell"),
        (["--gpus-per-cell", "1.5"], "above 1 it has to be a whole number"),
    ],
)
def test_options_that_cannot_be(benchmark_command: Command, options: list[str], told: str) -> None:
    assert told in one_line_error(benchmark_command("run", *options), 4)


def test_files_stay_in_the_folder_of_their_cell(tmp_path: Path) -> None:
    ray_cell = pytest.importorskip("benchmark.ray_cell", reason="Ray is not installed")
    cell = tmp_path / "cell"
    files = {"status.json": b"{}", "samples/0-0.png": b"png"}
    ray_cell.write(cell, files)
    (cell / ".metrics.jsonl.part").touch()
    assert ray_cell.read(cell) == files
    for name in ("../outside", str(tmp_path / "outside"), "samples/../../outside"):
        with pytest.raises(ValueError, match="no file of a cell"):
            ray_cell.write(cell, {name: b""})
    assert os.listdir(tmp_path) == ["cell"]
