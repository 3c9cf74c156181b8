"""``benchmark measure``: from stored features, with its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import detectors
from results import metrics, store
from tests.benchmark.conftest import Command, environment, one_line_error
from tests.results.synthetic import Synthetic

CELL = "dag--style--s0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that nothing was measured in."""
    return Synthetic(tmp_path / "run", methods=("dag",)).write()


def test_one_metric_is_written_and_printed(benchmark_command: Command, folder: Path) -> None:
    done = benchmark_command("measure", "vendi", folder)
    assert done.returncode == 0, done.stderr
    lines = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    assert ["vendi", "scorer", "dag", "style", "2"] in [line[:5] for line in lines]
    run = store.read_run(folder)
    assert {name for cell in run.cells.values() for name in cell.measures} == {"vendi"}
    assert not list(folder.rglob(".*"))


def test_all_of_them_and_what_is_refused(benchmark_command: Command, folder: Path) -> None:
    done = benchmark_command("measure", "all", folder)
    assert done.returncode == 0, done.stderr
    assert "fid: refused: fid needs at least 10,000 images, not 16" in done.stdout
    assert set(store.read_run(folder).cells[CELL].measures) == set(metrics.registry())


def test_a_metric_that_refuses_everywhere_is_an_error(
    benchmark_command: Command, folder: Path
) -> None:
    message = one_line_error(benchmark_command("measure", "fid", folder), 3)
    assert "fid needs at least 10,000 images, not 16" in message


@pytest.mark.parametrize(("metric", "nearest"), [("vendy", "vendi"), ("kidd", "kid")])
def test_an_unknown_metric_names_the_nearest(
    benchmark_command: Command, folder: Path, metric: str, nearest: str
) -> None:
    message = one_line_error(benchmark_command("measure", metric, folder), 4)
    assert f"unknown metric {metric!r}; did you mean {nearest!r}" in message
    assert not list(folder.rglob("measures/*.json"))


def test_no_run_no_features_and_damaged_features(
    benchmark_command: Command, folder: Path, tmp_path: Path
) -> None:
    assert "no run.json" in one_line_error(benchmark_command("measure", "kid", tmp_path), 3)
    path = store.features_path(store.cell_folder(folder, CELL), 8)
    path.write_bytes(b"damaged")
    message = one_line_error(benchmark_command("measure", "kid", folder), 3)
    assert "features/8.safetensors: cannot be read" in message
    for features in folder.rglob("features/*.safetensors"):
        features.unlink()
    message = one_line_error(benchmark_command("measure", "kid", folder), 3)
    assert "no cell is done and has stored features" in message


def test_metrics_are_listed(benchmark_command: Command) -> None:
    done = benchmark_command("list", "metrics")
    assert done.returncode == 0, done.stderr
    first_words = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {*metrics.registry(), *detectors.registry()} <= first_words


def test_measuring_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom benchmark.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert 'torch' not in sys.modules\n    raise\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "measure", "recall", str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
