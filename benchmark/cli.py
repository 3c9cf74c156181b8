"""The command line. Torch is imported by the commands that need it, after all cheap checks."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from benchmark import calibrate_command, folder_commands, gate_command, report_commands
from benchmark.errors import EXIT_CODES, BenchmarkError, UsageError, shown
from benchmark.options import (
    Address,
    CpusPerCell,
    Executor,
    ExecutorName,
    GpusPerCell,
    MemoryLimit,
    Retry,
    TimeLimit,
    Trackers,
    Workers,
)

# Typer carries its own copy of click in newer versions; this finds the class in either.
_CommandLineError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
_EXIT_CODES = "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items())

app = typer.Typer(
    name="benchmark",
    help="Compare alignment methods for text-to-image diffusion models.",
    epilog=_EXIT_CODES + ".",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Kind(StrEnum):
    """What ``list`` can list."""

    METHODS = "methods"
    REWARDS = "rewards"
    SUITES = "suites"
    MODELS = "models"
    METRICS = "metrics"
    PROMPTS = "prompts"
    CALIBRATIONS = "calibrations"


SuiteName = Annotated[str, typer.Option(help="Name of a suite, or path of a YAML file.")]
Methods = Annotated[
    str | None, typer.Option(help="Methods, commas between; base and best-of-n always run.")
]
Rewards = Annotated[str | None, typer.Option(help="Rewards, commas between.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds, such as 0-2 or 0,3,5.")]
ModelName = Annotated[
    str | None, typer.Option(help="Model to align, by name, folder or hub id: model.name.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any field of the suite, or METHOD.OPTION: ddpo.learning_rate=1e-4, "
        "budget.images=64. The value is YAML. May be repeated.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run: new, empty, or one to finish. By default the next free "
        "runs/SUITE-NNN."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and list the cells; run nothing.")
]


@app.command(epilog=_EXIT_CODES + ".")
def run(
    suite: SuiteName = "emoji",
    methods: Methods = None,
    rewards: Rewards = None,
    seeds: Seeds = None,
    model: ModelName = None,
    set_: Changes = None,
    out: RunFolder = None,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    executor: Executor = ExecutorName.LOCAL,
    address: Address = None,
    cpus_per_cell: CpusPerCell = None,
    gpus_per_cell: GpusPerCell = None,
    retry: Retry = None,
    tracker: Trackers = None,
    dry_run: DryRun = False,
) -> None:
    """Run the cells of a suite that are missing, and write the report."""
    from benchmark import overrides, tracking
    from benchmark import suite as suites

    tracking.check(tracker or [])
    changes = overrides.changes(set_ or [], model)
    retried = overrides.retried(retry)
    values, origins = suites.read(suite)
    overrides.select(values, origins, methods, rewards, seeds)
    overrides.apply(values, origins, changes)
    given = {
        "workers": workers,
        "time_limit": time_limit,
        "memory_limit": memory_limit,
        "cpus_per_cell": cpus_per_cell,
        "gpus_per_cell": gpus_per_cell,
    }
    overrides.replace(values, origins, given)
    checked = suites.check(values, origins)
    on_ray = executor is ExecutorName.RAY
    if address is not None and not on_ray:
        raise UsageError(f"--address {address}: only with --executor ray")
    if on_ray:
        from benchmark import ray_executor  # noqa: F401 (told before anything runs)

    from benchmark import resolution, summary
    from benchmark import run as runs

    resolved = resolution.resolve(checked, origins)
    planned = runs.plan(resolved, out, _command(), retried, runs.Executor(on_ray, address))
    if dry_run:
        summary.print_plan(planned)
    else:
        runs.execute(planned, tracker or [])


@app.command(epilog=_EXIT_CODES + ".")
def throughput(
    methods: Annotated[
        str | None, typer.Option(help="Methods, commas between; by default the suite's.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="The reward; by default the suite's first.")
    ] = None,
    suite: SuiteName = "emoji-quick",
    rounds: Annotated[
        int, typer.Option(min=2, help="Rounds of each method that count, after the warm-up.")
    ] = 8,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Most rounds of warm-up; it ends once rounds are steady.")
    ] = 20,
    model: ModelName = None,
    set_: Changes = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Empty or new folder; by default the next free runs/throughput-NNN."),
    ] = None,
) -> None:
    """Measure how fast methods train: their rounds in turns, in one process."""
    from benchmark import overrides
    from benchmark import suite as suites

    changes = overrides.changes(set_ or [], model)
    values, origins = suites.read(suite)
    overrides.select(values, origins, methods, None, None)
    if reward is not None:
        values["rewards"] = [reward]
        origins.options[("rewards",)] = f"--reward {reward}"
    overrides.apply(values, origins, changes)
    checked = suites.check(values, origins)

    from benchmark import resolution
    from benchmark import throughput as throughputs

    resolved = resolution.resolve(checked, origins)
    throughputs.measure(resolved, list(checked.methods), rounds, warm_up, out, _command())


for _reporting in report_commands.COMMANDS:
    app.command(epilog=_EXIT_CODES + ".")(_reporting)


@app.command(epilog=_EXIT_CODES + ".")
def check(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="METHOD_OR_FILE",
            help="A method or reward by its name, or the class in a file of yours: "
            "path/to/file.py:Class.",
        ),
    ],
) -> None:
    """Check that a method or reward keeps what every one of its kind keeps, a line a check."""
    from benchmark.conformance import subject as subjects

    subjects.check(subject)


@app.command(epilog=_EXIT_CODES + ".")
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A reward of `list rewards` that needs weights, or "
            "a network of an encoder or detector: clip, dinov2, dino, safety-checker, detr, "
            "diffdoctor.",
        ),
    ],
) -> None:
    """Fetch the weights of a reward or encoder from the model hub, and check their SHA-256."""
    from benchmark import fetch as fetching

    fetching.fetch(name)


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what can be named: methods, rewards, suites, models, metrics, prompts, calibrations."""
    from benchmark import listing

    listing.show(kind.value)


@app.command("check-model")
def check_model(
    model: Annotated[str, typer.Option(help="Embedded model, folder or hub id.")] = "emoji",
    images: Annotated[int, typer.Option(min=1, help="Pictures of each of the 45 animals.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder of the emoji packages, to judge held-out real pictures too."),
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="PNG to write: every picture.")] = None,
) -> None:
    """Measure whether the embedded model draws what is asked, and whether the scorer can tell."""
    from benchmark import model_check

    shares = model_check.check_model(model, images, steps, guidance, seed, packages, grid)
    for name, share in shares.items():
        print(f"{name}: {share}")


@app.command(epilog=_EXIT_CODES + ".")
def doctor(
    suite: Annotated[str, typer.Option(help="Suite whose needs and time are told.")] = "emoji",
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    probe: Annotated[
        bool, typer.Option(help="Time a few calls of the networks to tell how long a run takes.")
    ] = True,
) -> None:
    """Say what this machine can run, and what enables the rest."""
    from benchmark import doctor as doctors

    raise typer.Exit(doctors.show(doctors.examine(suite, probe), json))


app.command(epilog=_EXIT_CODES + ".")(calibrate_command.calibrate)
app.command(epilog=gate_command.EPILOG)(gate_command.gate)
for _function in folder_commands.COMMANDS:
    app.command(epilog=_EXIT_CODES + ".")(_function)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; expected failures are one line on stderr."""
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="python -m benchmark", standalone_mode=False)
    except BenchmarkError as error:
        _fail(str(error), error.exit_code)
    except _CommandLineError as error:
        _fail(f"{error.format_message().replace('Value error, ', '')} (see --help)", 4)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {shown(message)}", file=sys.stderr)
    sys.exit(code)


def _command() -> str:
    """The command as typed, for the record of the run."""
    return shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
