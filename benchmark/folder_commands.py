"""Commands on the folder of a run, or of a cell."""

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


def sample(
    where: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CELL", help="Folder of a run, or of one of its cells.")
    ],
    prompt: Annotated[list[str], typer.Option(help="What to draw. May be repeated.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    seed: Annotated[int, typer.Option(min=0, help="Decides the noise they start from.")] = 0,
) -> None:
    """Draw pictures from the trained weights of a cell, or of every cell of a run."""
    from benchmark import sampling

    for path in sampling.sample(where, prompt, count, out, seed):
        print(path)


def push(
    cell: Annotated[Path, typer.Argument(metavar="CELL", help="Folder of a cell that is done.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to, on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private if new.")] = False,
) -> None:
    """Upload a cell's trained weights with their card to a model hub."""
    from benchmark import pushing

    print(pushing.push(cell, repository, private))


COMMANDS = (status, prune, index, export, merge, sample, push)
