"""Ten thousand finished cells: the commands on a folder stay linear and their memory bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.html import PAGE_BYTES
from tests.benchmark import scale

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A thousand cells, and ten thousand."""
    root = tmp_path_factory.mktemp("scale")
    return scale.write(root / "1000", 1000), scale.write(root / "10000", 10_000)


@pytest.mark.parametrize(
    ("command", "most_seconds", "most_bytes", "most_a_cell"),
    [
        ("status", 3.0, 300_000_000, 10_000),
        ("index", 20.0, 300_000_000, 10_000),
        ("report", 120.0, 1_000_000_000, 50_000),
    ],
)
def test_a_command_on_ten_thousand_cells(
    folders: tuple[Path, Path],
    command: str,
    most_seconds: float,
    most_bytes: int,
    most_a_cell: int,
) -> None:
    less, more = (scale.measure(command, folder) for folder in folders)
    # Of the processor: another program on the machine does not count.
    assert more.processor_seconds < most_seconds
    assert more.processor_seconds < 12 * less.processor_seconds
    assert more.peak_bytes < most_bytes
    assert more.peak_bytes < less.peak_bytes + 9000 * most_a_cell
    if command == "report":
        pages = [(folder / "report.html").read_bytes() for folder in folders]
        assert all(1_000_000 < len(page) <= PAGE_BYTES for page in pages)
        assert b"of 111 training rewards" in pages[1] and b"of 10,000 cells shown" in pages[1]
