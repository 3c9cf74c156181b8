"""A synthetic run and its report, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.html import write_report
from results.store import Run, read_run
from tests.results.synthetic import Synthetic


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds, one cell failed, one pairing not applicable."""
    folder: Path = tmp_path_factory.mktemp("run")
    return read_run(Synthetic(folder, measured=True).write())


@pytest.fixture(scope="session")
def page(run: Run) -> str:
    """The report as written."""
    return write_report(run.folder).read_text(encoding="utf-8")
