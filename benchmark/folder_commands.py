"""Commands on the folder of a run; none of them imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def status(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Folder of a run; by default the latest of runs."),
    ] = None,
) -> None:
    """Show which cells of a run are done, and what has become of the others."""
    from benchmark import run_status

    run_status.show(run)


def prune(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; else it is only shown.")] = False,
) -> None:
    """Show what of a run folder is of no use any more, and delete it where that is asked for."""
    from benchmark import pruning

    pruning.prune(run, yes)


def index(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default index.sqlite in the run.")
    ] = None,
) -> None:
    """Write an SQLite index of a run: its cells, their states, costs and mean scores."""
    from benchmark import indexing

    print(indexing.write_index(run, out))


def export(
    run: RunArgument,
    parquet: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write.")],
) -> None:
    """Write every score of a run as one table, a row for each evaluation, reward and prompt."""
    from benchmark import indexing

    print(indexing.write_parquet(run, parquet))


def merge(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a run.")],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="Folder of the same suite, run elsewhere.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the cells of both.")],
) -> None:
    """Join the results of two machines; what contradicts is refused."""
    from benchmark import merging

    merging.merge(first, second, out)


COMMANDS = (status, prune, index, export, merge)
