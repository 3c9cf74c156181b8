"""``benchmark report``: the page of a run."""

from __future__ import annotations

from pathlib import Path

from benchmark.errors import NothingToReport, UsageError
from results.store import ResultsError


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the HTML report of a run, by default ``report.html`` in its folder; its path.

    Raises ``NothingToReport`` for a folder that holds no readable run, ``UsageError`` where the
    page cannot be written.
    """
    from reports.html import write_report as write_page

    target = out or run_folder / "report.html"
    try:
        return write_page(run_folder, target)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
