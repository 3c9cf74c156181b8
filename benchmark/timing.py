"""Speed against another commit: both measured here and now, in turns, in processes of their own.

The other commit is unpacked beside the working tree, and ``throughput`` runs from the one, then
from the other, A B B A A B: what slows the machine for a while slows both of a pair. A pair of
processes is one repetition. Seconds of another machine, or of another day, are never used.
"""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.errors import UsageError
from results import gate, store
from results.gate import Comparison
from results.gate_verdicts import Verdict
from results.record_text import ResultsError
from results.throughput import FILE_NAME, ThroughputRecord

MEASURE = "seconds a round"
MARGIN = math.log(1.05)
"""Slower by less than 5 % is no loss."""
ROUNDS = 4
WARM_UP = 6
"""Rounds of each method in each process, and most rounds of its warm-up."""


@dataclass(frozen=True)
class Measured:
    """What one process has measured."""

    seconds: dict[str, float]
    """Method to the median of its rounds."""
    machine: str
    failure: str = ""
    """Why there is nothing; one line."""


def compare(commit: str, suite: str, methods: str | None, pairs: int) -> list[Comparison]:
    """A verdict for each method: the working tree against ``commit``, ``pairs`` times each.

    What is slower is measured once more, in new processes, and called a regression only if it is
    slower again. Raises ``UsageError`` for a commit that there is not, or outside of a checkout.
    """
    root = _root()
    if Path(suite).suffix:
        suite = str(Path(suite).resolve())
    arguments = ["--suite", suite, "--rounds", str(ROUNDS), "--warm-up", str(WARM_UP)]
    arguments += ["--methods", methods] if methods else []
    with _unpacked(root, commit) as base, tempfile.TemporaryDirectory() as scratch:
        first = _measure(base, root, arguments, pairs, Path(scratch) / "first")
        comparisons = verdicts(*first, commit)
        slower = {each.group for each in comparisons if each.verdict is Verdict.REGRESSION}
        if not slower:
            return comparisons
        again = _measure(base, root, arguments, pairs, Path(scratch) / "again")
        confirmed = {
            each.group
            for each in verdicts(*again, commit)
            if each.verdict is Verdict.REGRESSION and each.group in slower
        }
    return [
        replace(each, verdict=Verdict.INCONCLUSIVE, detail=f"{each.detail}; not when repeated")
        if each.group in slower - confirmed
        else each
        for each in comparisons
    ]


def verdicts(base: Sequence[Measured], ours: Sequence[Measured], commit: str) -> list[Comparison]:
    """Compare pair by pair; processes that failed, and methods of one side alone, are verdicts."""
    if failed := [each.failure for each in ours if each.failure]:
        return [Comparison("all methods", MEASURE, Verdict.FAILED, failed[0])]
    if failed := [each.failure for each in base if each.failure]:
        return [Comparison("all methods", MEASURE, Verdict.MISSING, f"{commit}: {failed[0]}")]
    machines = sorted({each.machine for each in (*base, *ours)})
    if len(machines) > 1:
        detail = " and ".join(machines)
        return [Comparison("all methods", MEASURE, Verdict.HARDWARE_CHANGED, detail)]
    names = dict.fromkeys(name for each in (*base, *ours) for name in each.seconds)
    return gate.adjust([_compare(name, base, ours, commit) for name in names])


def _compare(
    name: str, base: Sequence[Measured], ours: Sequence[Measured], commit: str
) -> Comparison:
    if not all(name in each.seconds for each in ours):
        return Comparison(name, MEASURE, Verdict.MISSING, "not measured here")
    if not all(name in each.seconds for each in base):
        return Comparison(name, MEASURE, Verdict.NEW, f"not measured at {commit}")
    old = tuple(each.seconds[name] for each in base)
    new = tuple(each.seconds[name] for each in ours)
    logs = [math.log(a / b) for a, b in zip(old, new, strict=True)]  # positive is faster
    test = gate.paired_t_test(logs)
    slower, low, high = (math.exp(-end) for end in (test.difference, test.high, test.low))
    interval = f"[{low:.3f}, {high:.3f}]" if math.isfinite(test.low) else "without an interval"
    return Comparison(
        name,
        MEASURE,
        Verdict.PASS,
        f"{slower:.3f} {interval} times the seconds of {commit}, {len(new)} pairs",
        unit="log ratio",
        margin=MARGIN,
        old=old,
        new=new,
        test=test,
    )


def _measure(
    base: Path, ours: Path, arguments: Sequence[str], pairs: int, scratch: Path
) -> tuple[list[Measured], list[Measured]]:
    """Both trees in turns, the first of a pair the second of the next."""
    found: dict[str, list[Measured]] = {"base": [], "ours": []}
    for pair in range(pairs):
        order = [("base", base), ("ours", ours)]
        for side, tree in order if pair % 2 == 0 else reversed(order):
            found[side].append(_run(tree, arguments, scratch / f"{side}-{pair}"))
        print(f"timing: pair {pair + 1} of {pairs}", flush=True)
    return found["base"], found["ours"]


def _run(tree: Path, arguments: Sequence[str], out: Path) -> Measured:
    command = [sys.executable, "-m", "benchmark", "throughput", *arguments, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 2):
        lines = done.stderr.strip().splitlines()
        return Measured({}, "", lines[-1] if lines else f"exit code {done.returncode}")
    try:
        record = store.read_json(out / FILE_NAME, ThroughputRecord)
    except ResultsError as error:
        return Measured({}, "", str(error))
    if not record.methods:
        return Measured({}, "", "; ".join(record.not_measured.values()))
    seconds = {each.method: each.median_seconds for each in record.methods}
    return Measured(seconds, str(record.methods[0].machine))


def _root() -> Path:
    """The checkout that this program runs from."""
    here = Path(__file__).resolve().parent
    fails = "--timing needs the program to run from a git checkout of it"
    # An installed copy may lie inside somebody's unrelated checkout.
    _git(here, "ls-files", "--error-unmatch", Path(__file__).name, fails=fails)
    return Path(_git(here, "rev-parse", "--show-toplevel", fails=fails).decode().strip())


@contextmanager
def _unpacked(root: Path, commit: str) -> Iterator[Path]:
    """The files of a commit in a folder that is gone afterwards; the repository is only read."""
    known = f"{commit}^{{commit}}"
    fails = f"--timing {commit}: no such commit"
    found = _git(root, "rev-parse", "--verify", "--end-of-options", known, fails=fails)
    archive = _git(root, "archive", found.decode().strip(), fails=fails)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def _git(folder: Path, *arguments: str, fails: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(fails) from error
    return done.stdout
