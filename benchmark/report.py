"""``benchmark report`` and ``compare``: the page of one run or two, figures for print, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmark.errors import NothingToReport, UsageError
from results import merged, store
from results.store import ResultsError, Run

Written = TypeVar("Written")


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the HTML report of a run, by default ``report.html`` in its folder; its path.

    Raises ``NothingToReport`` for a folder that holds no readable run, ``UsageError`` where the
    page cannot be written.
    """
    from reports.html import write_report as write_page

    target = out or run_folder / "report.html"
    return _written(target, lambda: write_page(run_folder, target))


def write_comparison(first: Path, second: Path, out: Path) -> Path:
    """Write the report of two run folders together; the path written.

    Raises as ``write_report`` does, and ``UsageError`` for two times the same folder.
    """
    from reports.html import write_comparison as write_page

    if first.resolve() == second.resolve():
        raise UsageError(f"{first} and {second} are the same folder: name two to compare")
    return _written(out, lambda: write_page(first, second, out))


def write_figures(run_folders: Sequence[Path], folder: Path) -> list[Path]:
    """Write the figures for print of a run, or of two together, into ``folder``; their paths.

    Two runs of one protocol are drawn together; of two protocols each has a folder, A or B.
    Raises ``UsageError`` too where the packages that draw them are missing, and
    ``NothingToReport`` for a run of which no cell is done.
    """
    try:
        from reports.figures import write_paper_figures
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--figures needs the package {error.name}: pip install -e '.[figures]'"
        ) from error
    return _each_part(run_folders, folder, write_paper_figures)


def write_tables(run_folders: Sequence[Path], folder: Path) -> list[Path]:
    """Write the tables of a run, or of two together, into ``folder`` as CSV, Markdown and LaTeX;
    their paths. Folders and errors are as of :func:`write_figures`."""
    from reports.tables import write_tables as write_all

    return _each_part(run_folders, folder, write_all)


def _each_part(
    run_folders: Sequence[Path], folder: Path, write: Callable[[Run, Path], list[Path]]
) -> list[Path]:
    paths = []
    for label, run in _parts(run_folders):
        target = folder / label if label else folder
        try:
            paths += _written(target, partial(write, run, target))
        except ValueError as error:
            raise NothingToReport(str(error)) from error
    return paths


def _parts(run_folders: Sequence[Path]) -> list[tuple[str, Run]]:
    """Label and run: one without a label, or one for each protocol."""
    runs = [_read(folder) for folder in run_folders]
    if len(runs) == 1:
        return [("", runs[0])]
    first, second = runs
    return merged.merge(first, second).parts


def _read(run_folder: Path) -> Run:
    try:
        run = store.read_run(run_folder, condense=True)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    if not run.cells:
        raise NothingToReport(f"{run_folder}: the run has no cells, so there is nothing to report")
    return run


def _written(target: Path, write: Callable[[], Written]) -> Written:
    try:
        return write()
    except ResultsError as error:
        raise NothingToReport(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
