"""A synthetic run, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.store import Run, read_run
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three seeds, one cell failed, one pairing not applicable."""
    folder: Path = tmp_path_factory.mktemp("run")
    return read_run(Synthetic(folder, seeds=(0, 1, 2), measured=True).write())
