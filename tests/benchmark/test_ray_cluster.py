"""A Ray cluster of three nodes, of which one is killed while a cell trains on it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark import claims
from results import store
from tests.benchmark.conftest import environment, one_line_error
from tests.benchmark.test_ray_run import TRAINED, hide_folder, write_points_suite
from tests.benchmark.test_run import pid_of, wait_for

pytestmark = pytest.mark.slow

IMAGES = 32 * 300
"""Of 300 rounds, so that one has time to kill a node."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    """The same cells without Ray."""
    folder = tmp_path_factory.mktemp("local")
    write_points_suite(folder, images=IMAGES)
    process = start(folder)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return store.read_run(folder / "run")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs no cells, and two nodes of one CPU each. Their temporary files are in the
    folder ``nodes``."""
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    (tmp_path / "nodes").mkdir()
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nodes"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # paths of sockets have to be short
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    del small["include_dashboard"]
    for last in (2, 3):  # of other addresses, so that the run connects to the head
        made.add_node(num_cpus=1, node_ip_address=f"127.0.0.{last}", **small)
    yield made
    made.shutdown()


def start(folder: Path, *options: str, cluster: Any = None) -> subprocess.Popen[str]:
    """A run in the folder ``run``, on the cluster if there is one."""
    command = ["-m", "benchmark", "run", "--suite", "points.yaml", "--out", "run", *options]
    if cluster is not None:
        command += ["--executor", "ray", "--address", cluster.address]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def node_of(cluster: Any, process: int) -> Any:
    """The node that a process runs on."""
    above = {parent.pid for parent in psutil.Process(process).parents()}
    for node in cluster.worker_nodes:
        if above & {raylet.process.pid for raylet in node.all_processes["raylet"]}:
            return node
    raise AssertionError(f"process {process} is on no node")


@pytest.mark.parametrize("disk", ["shared", "of its own"])
def test_a_lost_node_loses_no_cell(
    cluster: Any, tmp_path: Path, disk: str, local: store.Run
) -> None:
    write_points_suite(tmp_path, images=IMAGES)
    over = threading.Event()
    if disk != "shared":
        threading.Thread(target=hide_folder, args=(tmp_path / "run", over), daemon=True).start()
    process = start(tmp_path, cluster=cluster)
    pattern = f"**/cells/{TRAINED}/metrics.jsonl"
    try:
        wait_for(lambda: bool(list(tmp_path.glob(pattern))), seconds=900)
        cell = next(tmp_path.glob(pattern)).parent
        assert (cell.parts[-3] == "run") == (disk == "shared")
        killed = pid_of(cell)
        cluster.remove_node(node_of(cluster, killed), allow_graceful=False)
        wait_for(lambda: not psutil.pid_exists(killed), seconds=20)
        output, errors = process.communicate(timeout=900)
    finally:
        over.set()
        process.kill()
    assert process.returncode == 0, output + errors
    assert output.count(f"{TRAINED}  loading  on ") == 2, output
    ours = store.read_run(tmp_path / "run")
    assert len(ours.cells) == 3
    for cell_id, other in local.cells.items():
        found = ours.cells[cell_id]
        assert found.status.state == other.status.state == "done"
        assert found.status.key == other.status.key
        assert [each.metrics for each in found.rounds] == [each.metrics for each in other.rounds]
        assert [each.rewards for each in found.evaluations] == [
            each.rewards for each in other.evaluations
        ]


def test_an_interrupted_run_brings_back_what_there_is(cluster: Any, tmp_path: Path) -> None:
    write_points_suite(tmp_path, images=32 * 4000)
    run, over = tmp_path / "run", threading.Event()
    threading.Thread(target=hide_folder, args=(run, over), daemon=True).start()
    process = start(tmp_path, "--workers", "3", cluster=cluster)
    pattern = f"nodes/**/cells/{TRAINED}/metrics.jsonl"
    try:
        wait_for(lambda: bool(list(tmp_path.glob(pattern))), seconds=900)
        cell_process = pid_of(next(tmp_path.glob(pattern)).parent)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        over.set()
        process.kill()
    done = subprocess.CompletedProcess([], process.returncode, "", errors)
    assert "--out run finishes the rest" in one_line_error(done, 130)
    wait_for(lambda: not psutil.pid_exists(cell_process), seconds=20)
    cell = store.read_run(run).cells[TRAINED]
    assert cell.status.state == "interrupted"
    assert cell.rounds
    assert claims.living(run) == {}


@pytest.mark.parametrize("options", [("--cpus-per-cell", "2"), ("--set", "model.processes=2")])
def test_a_cell_that_fits_nowhere_is_told(
    cluster: Any, tmp_path: Path, options: tuple[str, str]
) -> None:
    write_points_suite(tmp_path)
    process = start(tmp_path, *options, cluster=cluster)
    output, errors = process.communicate(timeout=300)
    done = subprocess.CompletedProcess([], process.returncode, output, errors)
    message = one_line_error(done, 4)
    assert "no node of the cluster has room for a cell (CPU 2; the most of each" in message


def test_two_cells_share_a_gpu(cluster: Any, tmp_path: Path) -> None:
    """Which is one by Ray's word: what a share is good for, a cell's networks would show."""
    path = write_points_suite(tmp_path, images=IMAGES)
    path.write_text(path.read_text(encoding="utf-8").replace("seeds:\n- 0", "seeds: 0-2"))
    cluster.add_node(num_cpus=4, num_gpus=1, node_ip_address="127.0.0.4")
    options = ("--gpus-per-cell", "0.5", "--set", "model.device=auto")
    process = start(tmp_path, *options, cluster=cluster)
    most, devices = 0, set()
    while process.poll() is None:
        alive = []
        for log in tmp_path.glob("run/cells/*/log.txt"):
            with suppress(AssertionError, psutil.Error):  # not yet written, or ended
                cell = psutil.Process(pid_of(log.parent))
                devices.add(cell.environ()["CUDA_VISIBLE_DEVICES"])
                alive.append(cell)
        most = max(most, len(alive))
        time.sleep(0.2)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    assert (most, devices) == (2, {"0"}), "four CPUs, but one GPU"
