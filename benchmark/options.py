"""Options of ``run`` that say how it runs, and not what."""

from __future__ import annotations

from typing import Annotated

import typer

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
