"""The command ``calibrate`` and its options; what it does is in ``benchmark.calibrate``."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark import calibrations
from benchmark.errors import UsageError


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def calibrate(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=f"A calibration: {', '.join(calibrations.names())}; or the path of a YAML file.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of the model; by default the calibration's."),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="By default a GPU where there is one.")
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Only so many prompts, evenly over the list. Standard errors grow as their square "
            "root falls.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, help="Images of each prompt; by default the calibration's.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Decides the noise; another than the stored values had."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for everything, as JSON.")] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Measure the stored values anew, with --seed, into the file itself."
        ),
    ] = False,
) -> None:
    """Compare the scores of the untrained model with stored ones, before any training."""
    from benchmark import calibrate as calibrates
    from benchmark.calibration_plan import Choices

    where = None if device is None else device.value
    choices = Choices(model=model, device=where, images=images, prompts=prompts, seed=seed)
    if not update:
        command = shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
        calibrates.calibrate(name, choices, out, command)
        return
    if out is not None:
        raise UsageError("--out goes without --update, which writes the calibration's own file")
    calibrates.update(name, choices)
