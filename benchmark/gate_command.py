"""The command ``gate`` and its options; what it does is in ``benchmark.gate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import UsageError
from results.gate_verdicts import EXIT_CODES

EPILOG = "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + "."


def gate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RESULTS", help="Folder of a run, or files of pytest-benchmark."),
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="The baseline, a JSON file.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make the baseline of RESULTS, or replace its values.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; written into the baseline.")] = "",
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="With --update: share of a measure's scale that is no loss; 0.05."
        ),
    ] = None,
    forget_oldest: Annotated[
        bool, typer.Option("--forget-oldest", help="With --update: reckon drift from now on.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="File for everything, as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for a summary.")] = None,
    junit: Annotated[Path | None, typer.Option(help="File for JUnit's XML.")] = None,
    timing: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT", help="Compare speed with a commit, here and now, in turns; alone."
        ),
    ] = None,
    timing_suite: Annotated[str, typer.Option(help="Suite that --timing measures.")] = "mixture",
    timing_methods: Annotated[
        str | None, typer.Option(help="Its methods, commas between; by default all.")
    ] = None,
    timing_pairs: Annotated[int, typer.Option(min=2, help="Processes of either side.")] = 5,
    timing_fails: Annotated[
        bool, typer.Option("--timing-fails", help="Slower is a failure, not only told.")
    ] = False,
) -> None:
    """Tell a regression from noise: new results against a baseline, a verdict a comparison."""
    from benchmark import gate as gates

    outputs = gates.Outputs(json, markdown, junit)
    if timing is not None:
        if results or baseline or update:
            raise UsageError("--timing measures by itself: it takes neither RESULTS nor --baseline")
        from benchmark import timing as timings

        comparisons = timings.compare(timing, timing_suite, timing_methods, timing_pairs)
        raise typer.Exit(gates.report(comparisons, outputs, not timing_fails, every=True))
    if not results or baseline is None:
        raise UsageError("gate needs RESULTS and --baseline FILE, or --timing COMMIT")
    if update:
        gates.update(results, baseline, reason, margin, forget_oldest)
        return
    if reason or margin is not None or forget_oldest:
        raise UsageError("--reason, --margin and --forget-oldest go with --update")
    comparisons, kind = gates.compare(results, baseline)
    advisory = kind == "speed" and not timing_fails
    raise typer.Exit(gates.report(comparisons, outputs, advisory))
