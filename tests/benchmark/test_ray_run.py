"""Cells as tasks of a Ray cluster of this machine alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

import benchmark
from benchmark import claims, suite
from results import store
from tests.benchmark.conftest import Command, one_line_error

BASE, BEST = "base--none--s0", "best-of-n--point_modes--s0"


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


def test_results_of_cells_come_back_from_a_node_with_another_disk(
    benchmark_command: Command, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
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
