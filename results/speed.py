"""Seconds measured by pytest-benchmark, as the regression gate compares them.

Rounds of one process share whatever was wrong with it, so a file is one repetition: the median of
its rounds. Several files, of processes that ran one after another, make a group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.baseline import Group, Sample, Snapshot
from results.gate import Observed
from results.record_text import ResultsError, one_line

MEASURE = "seconds"


def groups(paths: Sequence[Path], margin: float) -> dict[str, Observed]:
    """Benchmark to what the files say of it; a benchmark that a file lacks is unfinished.

    ``margin`` is the share of a benchmark's seconds that is no loss. Raises ResultsError for a file
    that is not pytest-benchmark's.
    """
    seconds: dict[str, dict[str, float]] = {}
    conditions: dict[str, dict[str, str]] = {}
    machines: set[str] = set()
    repetitions = [f"file {index}" for index in range(1, len(paths) + 1)]
    for repetition, path in zip(repetitions, paths, strict=True):
        content = _read(path)
        machines.add(_machine(content))
        for each in _benchmarks(path, content):
            name, median, extra = each
            seconds.setdefault(name, {})[repetition] = median
            conditions.setdefault(name, extra)
    hardware = " and ".join(sorted(machines))
    return {
        name: Observed(
            Group(
                hardware=hardware,
                conditions=conditions[name],
                samples={MEASURE: _sample(values, margin)},
            ),
            unfinished=tuple(f"{r} has not measured it" for r in repetitions if r not in values),
        )
        for name, values in seconds.items()
    }


def snapshot(observed: dict[str, Observed]) -> Snapshot:
    """The numbers as a baseline keeps them."""
    return Snapshot(
        environment=None, groups={name: each.group for name, each in observed.items() if each.group}
    )


def _sample(values: dict[str, float], margin: float) -> Sample:
    finite = [value for value in values.values() if math.isfinite(value)]
    scale = math.fsum(finite) / len(finite) if finite else 0.0
    return Sample(direction="lower", unit="s", margin=margin * scale, values=values)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise ResultsError(f"{path}: neither a results folder nor a file of pytest-benchmark")
    return content


def _benchmarks(path: Path, content: dict[str, Any]) -> list[tuple[str, float, dict[str, str]]]:
    """Name, median seconds and conditions of each benchmark."""
    try:
        return [
            (
                each["fullname"],
                float(each["stats"]["median"]),
                {str(key): str(value) for key, value in each.get("extra_info", {}).items()},
            )
            for each in content["benchmarks"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path}: damaged: {type(error).__name__} {error}") from error


def _machine(content: dict[str, Any]) -> str:
    """Processor, number of cores and Python: times of others are never compared."""
    info = _mapping(content.get("machine_info"))
    cpu = _mapping(info.get("cpu"))
    name = cpu.get("brand_raw") or info.get("processor") or "not recorded"
    return f"{name}, {cpu.get('count', '?')} cores, Python {info.get('python_version', '?')}"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
