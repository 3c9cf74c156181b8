"""Anchors of a suite, measured from runs of it: prints the part of its file that declares them.

    python -m benchmark.anchors RUN [RUN ...]

Runs have to be of one protocol, with ``base`` and ``best-of-n`` done on every reward; the means
over all their seeds are taken.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmark.protocol import digest
from results import store
from results.scores import BASE, BEST_OF_N, final_scores, tasks
from results.store import ResultsError, Run


def declaration(runs: Sequence[Run]) -> str:
    """The key ``anchors`` of a suite file, as text.

    Raises ``ResultsError`` for runs of several protocols, without a content of it, or with a reward
    on which a control has no finite score.
    """
    first = runs[0].record
    for run in runs[1:]:
        if run.record.protocol != first.protocol:
            raise ResultsError(
                f"{run.folder}: measured by protocol {run.record.protocol}, {runs[0].folder} by "
                f"{first.protocol}: not comparable"
            )
    if not first.protocol_content:
        raise ResultsError(f"{runs[0].folder}: does not tell the content of its protocol")
    seeds = sorted({seed for run in runs for seed in run.record.seeds})
    budgets = sorted({run.record.suite_config["budget"]["images"] for run in runs})
    content = {
        "conditions": digest(first.protocol_content["conditions"]),
        "source": f"means of base and best-of-n, {'/'.join(map(str, budgets))} images a cell, "
        f"seeds {', '.join(map(str, seeds))}",
        "rewards": {
            task: {
                "version": first.rewards[task].version,
                "zero": _mean(runs, BASE, task),
                "one": _mean(runs, BEST_OF_N, task),
            }
            for task in tasks(runs[0])
        },
    }
    return yaml.safe_dump({"anchors": content}, sort_keys=False, width=100)


def _mean(runs: Sequence[Run], method: str, task: str) -> float:
    """Over the seeds of all runs, to six significant digits."""
    values = [
        value
        for run in runs
        for value in final_scores(run, method, task, "reward", task).values()
        if np.isfinite(value)
    ]
    if not values:
        raise ResultsError(f"{runs[0].folder}: {method} has no score on {task}")
    return float(f"{np.mean(values):.6g}")


def main(arguments: Sequence[str]) -> str:
    """What is to be printed; exits with a line on stderr and code 3 or 4 where there is nothing."""
    if not arguments:
        print("error: name the folder of a run", file=sys.stderr)
        sys.exit(4)
    try:
        return declaration([store.read_run(Path(folder)) for folder in arguments])
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    print(main(sys.argv[1:]), end="")
