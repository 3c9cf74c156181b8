"""Options of ``run`` that say how it runs, and not what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class ExecutorName(StrEnum):
    """What runs cells."""

    LOCAL = "local"
    RAY = "ray"


Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Cells at a time; by default one for each core, as far as memory goes."
    ),
]
TimeLimit = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Most time of a cell; none by default.")
]
MemoryLimit = Annotated[
    float | None, typer.Option(metavar="GIB", help="Most memory of a cell; none by default.")
]
Executor = Annotated[
    ExecutorName,
    typer.Option(help="What runs the cells: processes of this machine, or a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster, as ray.init takes it: HOST:PORT, or auto for one that runs here. "
        "By default one of this machine alone is started."
    ),
]
CpusPerCell = Annotated[
    float | None,
    typer.Option(metavar="N", help="CPUs of a Ray cluster for each cell; by default its threads."),
]
GpusPerCell = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="GPUs of a Ray cluster for each cell, or a share of one, such as 0.5; by default 1 "
        "where it has any.",
    ),
]
Retry = Annotated[
    str | None,
    typer.Option(
        metavar="STATES",
        help="Cells to run again that ended without results: failed, diverged, timed-out, commas "
        "between, or all.",
    ),
]
Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker",
        metavar="NAME",
        help="tensorboard, wandb or trackio: gets what cells write to their files too. May be "
        "repeated.",
    ),
]
