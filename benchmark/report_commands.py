"""Commands that tell what runs have shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Figures = Annotated[
    Path | None, typer.Option(help="Folder for the figures as PDF and SVG, for print.")
]
Tables = Annotated[
    Path | None, typer.Option(help="Folder for the tables as CSV, Markdown and LaTeX.")
]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default report.html in the run.")
    ] = None,
    figures: Figures = None,
    tables: Tables = None,
) -> None:
    """Write the HTML report of a run, finished or not."""
    from benchmark.report import write_report

    print(write_report(run, out))
    _write_for_print([run], figures, tables)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a run.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another run.")],
    out: Annotated[
        Path, typer.Option(help="File to write; by default in the current folder.")
    ] = Path("compare.html"),
    figures: Figures = None,
    tables: Tables = None,
) -> None:
    """Write the HTML report of two runs together; different protocols stay apart in it."""
    from benchmark.report import write_comparison

    print(write_comparison(first, second, out))
    _write_for_print([first, second], figures, tables)


def _write_for_print(runs: list[Path], figures: Path | None, tables: Path | None) -> None:
    """Write what was asked for beside a page, and print its paths."""
    from benchmark.report import write_figures, write_tables

    for path in write_figures(runs, figures) if figures else []:
        print(path)
    for path in write_tables(runs, tables) if tables else []:
        print(path)


def measure(
    metric: Annotated[
        str,
        typer.Argument(metavar="METRIC", help="A metric of `list metrics`, or all of them: all."),
    ],
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of a run.")],
) -> None:
    """Compute a metric of every finished cell from stored features; no image is made anew."""
    from benchmark import measurement

    measurement.measure(metric, results)


COMMANDS = (report, compare, measure)
