"""A run that fills its disk up: which cells failed is told, and what is missing is done later."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from results import store
from tests.benchmark.conftest import one_line_error
from tests.benchmark.test_faults import run, small_suite

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder ``run`` on a disk that a run fills up."""
    folder = tmp_path / "run"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip("this user cannot mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, tiny_model: Path) -> None:
    small_suite(tmp_path, tiny_model, ["colourfulness"])
    done = run(tmp_path, "tiny.yaml", "--workers", "1")
    # The first cell has room, the others have not.
    message = one_line_error(done, 2)
    assert message.startswith("error: 2 of 3 cells failed: best-of-n--colourfulness--s0, ddpo--")
    assert message.endswith("; no report: cannot write to run: No space left on device")
    assert len(re.findall(r"  failed  .*No space left on device", done.stdout)) == 2
    # With room again, the same command does what is missing.
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    again = run(tmp_path, "tiny.yaml", "--workers", "1", "--retry", "failed")
    assert again.returncode == 0, again.stdout + again.stderr
    cells = store.read_run(small_disk).cells
    assert [cell.status.state for cell in cells.values()] == ["done"] * 3
