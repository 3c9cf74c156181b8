"""Speed in the gate: files of pytest-benchmark, and pairs of processes against a commit."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import timing
from benchmark.timing import Measured
from results.gate_verdicts import Verdict
from tests.benchmark.conftest import Command, one_line_error

MACHINE = {"cpu": {"brand_raw": "a processor", "count": 2}, "python_version": "3.11.7"}


def write(path: Path, seconds: dict[str, float], machine: Any = MACHINE, threads: int = 1) -> Path:
    """A file as pytest-benchmark writes it, what the gate does not read left out."""
    benchmarks = [
        {"fullname": name, "stats": {"median": median}, "extra_info": {"threads": threads}}
        for name, median in seconds.items()
    ]
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks}))
    return path


def files(folder: str, factors: dict[str, float], seed: int = 0, **fields: Any) -> list[Path]:
    """Three processes, their seconds 2 % apart."""
    random = np.random.default_rng(seed)
    Path(folder).mkdir()
    return [
        write(
            Path(folder) / f"{index}.json",
            {name: factor * (1 + 0.02 * random.normal()) for name, factor in factors.items()},
            **fields,
        )
        for index in range(3)
    ]


BEFORE = {"rollout": 1.0, "report": 0.2}
UPDATE = ("--baseline", "b.json", "--update", "--reason", "first")


@pytest.mark.parametrize(
    ("now", "code", "verdicts"),
    [
        (BEFORE, 0, {"rollout": "pass", "report": "pass"}),
        ({"rollout": 1.5, "report": 0.2}, 0, {"rollout": "regression", "report": "pass"}),
        ({"rollout": 0.5, "report": 0.2}, 0, {"rollout": "improvement", "report": "pass"}),
        ({"rollout2": 20.0, "report": 0.2}, 3, {"rollout": "missing", "rollout2": "new"}),
        ({"other": 1.0}, 3, {"rollout": "missing", "report": "missing", "other": "new"}),
        ({"rollout": math.nan, "report": 0.2}, 2, {"rollout": "failed", "report": "pass"}),
        ({}, 3, {"rollout": "missing", "report": "missing"}),
    ],
)
def test_verdicts_of_benchmarks(
    benchmark_command: Command, now: dict[str, float], code: int, verdicts: dict[str, str]
) -> None:
    made = benchmark_command("gate", *files("old", BEFORE), *UPDATE)
    assert made.returncode == 0, made.stderr
    arguments = ("--baseline", "b.json", "--json", "g.json")
    done = benchmark_command("gate", *files("new", now, seed=1), *arguments)
    assert done.returncode == code, done.stdout
    content = json.loads(Path("g.json").read_text())
    found = {each["group"]: each["verdict"] for each in content["comparisons"]}
    assert found == {**found, **verdicts}


def test_slower_fails_where_that_is_asked(benchmark_command: Command) -> None:
    benchmark_command("gate", *files("old", BEFORE), *UPDATE)
    now = files("new", {"rollout": 1.5, "report": 0.2}, seed=1)
    done = benchmark_command("gate", *now, "--baseline", "b.json")
    assert done.returncode == 0 and "slower is told and does not fail" in done.stdout
    done = benchmark_command("gate", *now, "--baseline", "b.json", "--timing-fails")
    assert done.returncode == 1


def test_one_file_a_side_says_nothing_about_noise(benchmark_command: Command) -> None:
    before, now = files("old", BEFORE)[:1], files("new", {"rollout": 1.5, "report": 0.2})[:1]
    benchmark_command("gate", *before, *UPDATE)
    done = benchmark_command("gate", *now, "--baseline", "b.json", "--timing-fails")
    assert done.returncode == 0 and "inconclusive" in done.stdout


def test_seconds_of_another_machine_are_not_compared(benchmark_command: Command) -> None:
    benchmark_command("gate", *files("old", BEFORE), *UPDATE)
    other = {**MACHINE, "python_version": "3.12.1"}
    for fields in ({"machine": other}, {"threads": 2}):
        folder = f"new-{next(iter(fields))}"
        done = benchmark_command("gate", *files(folder, BEFORE, **fields), "--baseline", "b.json")
        assert done.returncode == 3, done.stdout


def test_a_benchmark_that_one_process_lacks_is_missing(benchmark_command: Command) -> None:
    old = files("old", BEFORE)
    benchmark_command("gate", *old, *UPDATE)
    write(old[1], {"rollout": 1.0})
    done = benchmark_command("gate", *old, "--baseline", "b.json")
    assert done.returncode == 2 and "file 2 has not measured it" in done.stdout


def test_files_that_are_no_measurements(benchmark_command: Command, tmp_path: Path) -> None:
    benchmark_command("gate", *files("old", BEFORE), *UPDATE)
    path = tmp_path / "x.json"
    for text, says in (("[]", "neither a results folder"), ("{", "cannot be read")):
        path.write_text(text)
        done = benchmark_command("gate", path, "--baseline", "b.json")
        assert says in one_line_error(done, 3)
    path.write_text('{"benchmarks": [{"fullname": "a"}]}')
    assert "damaged" in one_line_error(benchmark_command("gate", path, "--baseline", "b.json"), 3)


@pytest.mark.slow
def test_what_pytest_benchmark_writes_is_compared(
    benchmark_command: Command, tmp_path: Path
) -> None:
    """Real files, of three of the parts; what they take now is nobody's to say here."""
    parts = ("kernel_step", "rollout", "report")
    root = Path(__file__).parents[2]
    found = [tmp_path / "old.json", tmp_path / "new.json"]
    for path in found:
        arguments = ["-q", "-p", "no:cacheprovider", "-m", "speed", "-k", " or ".join(parts)]
        subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, "--benchmark-json", path, "tests/speed"],
            cwd=root,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            capture_output=True,
            check=True,
        )
    made = benchmark_command("gate", found[0], *UPDATE)
    assert made.returncode == 0, made.stderr
    done = benchmark_command("gate", found[1], "--baseline", "b.json", "--json", "g.json")
    assert done.returncode == 0, done.stdout
    groups = [each["group"] for each in json.loads(Path("g.json").read_text())["comparisons"]]
    assert sorted(groups) == sorted(f"tests/speed/test_speed.py::test_{part}" for part in parts)
    content = json.loads(found[1].read_text())
    content["benchmarks"] = content["benchmarks"][1:]
    found[1].write_text(json.dumps(content))
    done = benchmark_command("gate", found[1], "--baseline", "b.json")
    assert done.returncode == 2 and "missing" in done.stdout


Side = list[Measured]


def pairs(slower: float, machine: str = "m", seed: int = 0) -> tuple[Side, Side]:
    """Six pairs whose two share what slows the machine, up to threefold."""
    random = np.random.default_rng(seed)
    shared = np.exp(random.uniform(0, math.log(3), 6))
    base = [Measured({"ddpo": s * (1 + 0.01 * random.normal())}, "m") for s in shared]
    ours = [Measured({"ddpo": s * slower * (1 + 0.01 * random.normal())}, machine) for s in shared]
    return base, ours


def verdict(base: Side, ours: Side) -> Verdict:
    (found,) = timing.verdicts(base, ours, "HEAD~1")
    return found.verdict


def test_pairs_see_what_the_machine_hides() -> None:
    assert verdict(*pairs(1.1)) is Verdict.REGRESSION
    assert verdict(*pairs(0.9)) is Verdict.IMPROVEMENT
    assert verdict(*pairs(1.02)) is Verdict.PASS  # significant, and within the margin
    quiet = [verdict(*pairs(1.0, seed=seed)) for seed in range(20)]
    assert set(quiet) == {Verdict.PASS}


def test_processes_that_cannot_be_compared() -> None:
    base, ours = pairs(1.0)
    assert verdict(base, pairs(1.0, machine="other")[1]) is Verdict.HARDWARE_CHANGED
    assert verdict(base, [*ours[:-1], Measured({}, "", "it broke")]) is Verdict.FAILED
    assert verdict([*base[:-1], Measured({}, "", "no such option")], ours) is Verdict.MISSING
    other = [Measured({"dag": 1.0}, "m")] * 6
    found = {each.group: each.verdict for each in timing.verdicts(base, other, "HEAD~1")}
    assert found == {"ddpo": Verdict.MISSING, "dag": Verdict.NEW}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--timing", "no-such-commit"), "no such commit"),
        (("--timing", "--upload-pack=x"), "no such commit"),
        (("run", "--timing", "HEAD"), "takes neither RESULTS nor --baseline"),
    ],
)
def test_bad_timing_is_one_line(
    benchmark_command: Command, arguments: tuple[str, ...], says: str
) -> None:
    assert says in one_line_error(benchmark_command("gate", *arguments), 4)


@pytest.mark.slow
def test_the_working_tree_against_its_own_commit(benchmark_command: Command) -> None:
    """Real processes; the ratio is near 1, whatever else the machine does."""
    arguments = ("--timing-methods", "ddpo-sf", "--timing-pairs", "3", "--json", "g.json")
    done = benchmark_command("gate", "--timing", "HEAD", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (each,) = json.loads(Path("g.json").read_text())["comparisons"]
    assert each["group"] == "ddpo-sf" and len(each["old"]) == len(each["new"]) == 3
    assert abs(each["difference"]) < math.log(1.5)
