"""Ten thousand finished cells: the commands on a folder stay linear and their memory bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmark import scale

pytestmark = pytest.mark.slow


def test_status_and_index_of_ten_thousand_cells(tmp_path: Path) -> None:
    few, many = (scale.write(tmp_path / str(cells), cells) for cells in (1000, 10_000))
    for command, most in (("status", 3.0), ("index", 20.0)):
        less, more = (scale.measure(command, folder) for folder in (few, many))
        # Of the processor: another program on the machine does not count.
        assert more.processor_seconds < most
        assert more.processor_seconds < 12 * less.processor_seconds
        assert more.peak_bytes < 300_000_000
        assert more.peak_bytes < less.peak_bytes + 10_000 * 10_000
