"""``benchmark gate`` through the command line: it finds what is there and is quiet otherwise."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from results.store import read_run
from tests.benchmark.conftest import ROOT, Command, one_line_error
from tests.results.synthetic import Synthetic

BASELINE_SEEDS = range(10)
METHODS = ("dag", "alignprop")


class Plain(Synthetic):
    """Without pictures, which no gate looks at."""

    def write_samples(self, folder: Path, method: str, seed: int) -> None:
        pass


def write_run(folder: Path, seeds: range) -> Path:
    return Plain(folder, seeds=tuple(seeds), methods=METHODS).write()


def change(run: Path, pattern: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit every evaluation of some cells."""
    paths = list(run.glob(f"cells/{pattern}/evaluations.jsonl"))
    assert paths
    for path in paths:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            edit(record)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


def shift(reward: str, by: float) -> Callable[[dict[str, Any]], None]:
    def edit(record: dict[str, Any]) -> None:
        record["rewards"][reward] = [[v + by for v in row] for row in record["rewards"][reward]]

    return edit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of ten seeds, made by the command, its run, and a run of three other seeds."""
    from benchmark import cli

    folder = tmp_path_factory.mktemp("gate")
    write_run(folder / "old", BASELINE_SEEDS)
    write_run(folder / "new", range(20, 23))
    arguments = [folder / "old", "--baseline", folder / "b.json", "--update", "--reason", "first"]
    with pytest.raises(SystemExit) as end:
        cli.main(["gate", *map(str, arguments)])
    assert end.value.code == 0
    return folder


@pytest.fixture
def new(made: Path, tmp_path: Path) -> Path:
    """A copy of the new run to spoil."""
    return Path(shutil.copytree(made / "new", tmp_path / "new"))


def found(path: Path) -> dict[str, dict[str, Any]]:
    """Verdicts by group and measure, as the JSON has them."""
    content = json.loads(path.read_text())
    return {
        f"{each['group']}: {each['measure']}": each
        for each in content["comparisons"]
        if each["against"] == "baseline"
    }


def deviation(made: Path) -> float:
    """Of the seeds of dag in its reward on ``style``."""
    baseline = json.loads((made / "b.json").read_text())
    sample = baseline["last"]["groups"]["dag--style"]["samples"]["reward style"]
    values = list(sample["values"].values())
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def test_an_unchanged_run_passes(benchmark_command: Command, made: Path) -> None:
    for run in ("old", "new"):
        done = benchmark_command("gate", made / run, "--baseline", made / "b.json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "regression" not in done.stdout.partition("exit code")[0]


def test_the_baseline_holds_raw_values_and_why(made: Path) -> None:
    content = json.loads((made / "b.json").read_text())
    assert content["history"][0]["reason"] == "first"
    environment = read_run(made / "old").cells["base--none--s0"].environment
    assert environment is not None
    assert content["history"][0]["commit"] == environment.commit
    groups = content["last"]["groups"]
    assert set(groups) == {
        "base--none",
        *(f"{m}--{r}" for m in ("best-of-n", "dag") for r in ("style", "colourfulness")),
        "alignprop--style",  # it does not apply to the other
    }
    dag = groups["dag--style"]["samples"]
    assert set(dag) >= {"reward style", "diversity scorer", "UNet samples", "reward calls"}
    assert list(dag["reward style"]["values"]) == [f"s{seed}" for seed in BASELINE_SEEDS]
    assert dag["reward calls"]["margin"] == 0 < dag["reward style"]["margin"]


def test_a_drop_of_three_deviations_is_caught(
    benchmark_command: Command, made: Path, new: Path
) -> None:
    change(new, "dag--style--*", shift("style", -3 * deviation(made)))
    outputs = ("--json", "g.json", "--markdown", "g.md", "--junit", "g.xml")
    done = benchmark_command("gate", new, "--baseline", made / "b.json", *outputs)
    assert done.returncode == 1, done.stdout
    verdicts = found(Path("g.json"))
    assert verdicts["dag--style: reward style"]["verdict"] == "regression"
    others = {each["verdict"] for name, each in verdicts.items() if "reward style" not in name}
    assert others <= {"pass", "inconclusive", "improvement"}
    assert "| regression | dag--style: reward style |" in Path("g.md").read_text()
    suite = ElementTree.parse("g.xml").getroot()
    assert suite.get("failures") == "1" and suite.get("tests") == str(len(verdicts))
    (case,) = [case for case in suite if case.find("failure") is not None]
    assert (case.get("classname"), case.get("name")) == ("dag--style", "reward style")


def test_twenty_runs_of_the_same_are_quiet(
    benchmark_command: Command, made: Path, tmp_path: Path
) -> None:
    for index in range(20):
        first = 100 + 3 * index
        run = write_run(tmp_path / f"a{index}", range(first, first + 3))
        done = benchmark_command("gate", run, "--baseline", made / "b.json")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_what_is_not_finite_fails(
    benchmark_command: Command, made: Path, new: Path, value: str
) -> None:
    def spoil(record: dict[str, Any]) -> None:
        record["rewards"]["style"][0][0] = value

    change(new, "dag--style--s21", spoil)
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 2, done.stdout
    each = found(Path("g.json"))["dag--style: reward style"]
    assert each["verdict"] == "failed" and "s21" in each["detail"] and None in each["new"]


def rename(run: Path, old: str, new: str) -> None:
    for path in (run / "cells").glob(f"{old}--*"):
        path.rename(path.with_name(path.name.replace(old, new)))
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace(f'"{old}', f'"{new}'))


def test_a_renamed_method_exits_3(benchmark_command: Command, made: Path, new: Path) -> None:
    rename(new, "dag", "gad")
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 3 and "or one renamed" in done.stdout
    verdicts = found(Path("g.json"))
    assert verdicts["dag--style: "]["verdict"] == "missing"
    assert verdicts["gad--style: "]["verdict"] == "new"
    assert "renamed? of its kind are gone: dag--style" in verdicts["gad--style: "]["detail"]
    assert verdicts["alignprop--style: reward style"]["verdict"] == "pass"


def test_a_renamed_method_hides_no_regression(
    benchmark_command: Command, made: Path, new: Path
) -> None:
    rename(new, "dag", "gad")
    change(new, "alignprop--style--*", shift("style", -10.0))
    assert benchmark_command("gate", new, "--baseline", made / "b.json").returncode == 1


def remove(run: Path, method: str) -> None:
    """The cells of a method, as if the run had been without it."""
    for path in (run / "cells").glob(f"{method}--*"):
        shutil.rmtree(path)
    record = json.loads((run / "run.json").read_text())
    kept = [name for name in record["cells"] if not name.startswith(f"{method}--")]
    (run / "run.json").write_text(json.dumps(record | {"cells": kept}))


def test_a_method_that_only_goes_or_only_comes_exits_2(
    benchmark_command: Command, made: Path, new: Path
) -> None:
    remove(new, "dag")
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 2
    assert found(Path("g.json"))["dag--style: "]["verdict"] == "missing"
    arguments = ("--baseline", "less.json", "--update", "--reason", "without dag")
    assert benchmark_command("gate", new, *arguments).returncode == 0
    done = benchmark_command("gate", made / "new", "--baseline", "less.json", "--json", "g.json")
    assert done.returncode == 2
    each = found(Path("g.json"))["dag--style: "]
    assert each["verdict"] == "new" and each["detail"] == "not in the baseline"


def test_nothing_in_common_exits_3(benchmark_command: Command, made: Path, new: Path) -> None:
    for old in ("dag", "alignprop", "best-of-n", "base"):
        rename(new, old, f"{old}2")
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--junit", "g.xml")
    assert done.returncode == 3 and "no comparison in common" in done.stdout


def test_a_run_without_cells_exits_3(benchmark_command: Command, made: Path, new: Path) -> None:
    record = json.loads((new / "run.json").read_text())
    (new / "run.json").write_text(json.dumps(record | {"cells": []}))
    done = benchmark_command("gate", new, "--baseline", made / "b.json")
    assert done.returncode == 3


def test_a_baseline_without_groups_exits_3(
    benchmark_command: Command, made: Path, tmp_path: Path
) -> None:
    content = json.loads((made / "b.json").read_text())
    content["last"]["groups"] = {}
    (tmp_path / "empty.json").write_text(json.dumps(content))
    done = benchmark_command("gate", made / "new", "--baseline", tmp_path / "empty.json")
    assert done.returncode == 3


def test_failed_cells_and_cells_not_run_exit_2(
    benchmark_command: Command, made: Path, new: Path
) -> None:
    status = {"state": "failed", "reason": "RuntimeError: [red]boom[/] | <b>\x1b[31m"}
    (new / "cells/dag--style--s20/status.json").write_text(json.dumps(status))
    (new / "cells/alignprop--style--s20/status.json").unlink()
    outputs = ("--json", "g.json", "--markdown", "g.md", "--junit", "g.xml")
    done = benchmark_command("gate", new, "--baseline", made / "b.json", *outputs)
    assert done.returncode == 2
    verdicts = found(Path("g.json"))
    assert verdicts["dag--style: "]["verdict"] == "failed"
    assert "[red]boom[/]" in verdicts["dag--style: "]["detail"]
    assert verdicts["alignprop--style: "]["verdict"] == "missing"
    assert "\x1b" not in done.stdout + Path("g.md").read_text()
    assert "<b>" not in Path("g.md").read_text()
    ElementTree.parse("g.xml")


def test_another_protocol_and_other_hardware_exit_3(
    benchmark_command: Command, made: Path, new: Path
) -> None:
    for path in new.glob("cells/dag--*/status.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_gpu_allocated_bytes": 1}))
    for path in new.glob("cells/dag--*/environment.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gpu": "a GPU"}))
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 3
    assert found(Path("g.json"))["dag--style: "]["verdict"] == "hardware changed"
    for path in (new / "run.json", *new.glob("cells/*/config.json")):
        path.write_text(path.read_text().replace('"5f1c0a7e"', '"00000000"'))
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 3
    each = found(Path("g.json"))["base--none: "]
    assert each["verdict"] == "protocol changed" and "5f1c0a7e -> 00000000" in each["detail"]


def test_more_work_is_a_regression(benchmark_command: Command, made: Path, new: Path) -> None:
    for path in new.glob("cells/dag--style--*/status.json"):
        status = json.loads(path.read_text())
        status["counts"]["reward_calls"] += 1
        path.write_text(json.dumps(status))
    done = benchmark_command("gate", new, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 1
    assert found(Path("g.json"))["dag--style: reward calls"]["verdict"] == "regression"


def test_drift_shows_against_the_oldest_values(
    benchmark_command: Command, made: Path, tmp_path: Path
) -> None:
    """Each step is too small for the gate; their sum is not."""
    baseline = tmp_path / "b.json"
    shutil.copy(made / "b.json", baseline)
    step = -1.2 * deviation(made)
    for index in (1, 2):
        run = write_run(tmp_path / f"run{index}", BASELINE_SEEDS)
        change(run, "dag--style--*", shift("style", index * step))
        done = benchmark_command(
            "gate", run, "--baseline", baseline, "--update", "--reason", f"step {index}"
        )
        assert done.returncode == 0, done.stderr
    new = write_run(tmp_path / "last", range(20, 23))
    change(new, "dag--style--*", shift("style", 3 * step))
    done = benchmark_command("gate", new, "--baseline", baseline)
    assert done.returncode == 1 and "drift since the oldest baseline" in done.stdout
    history = json.loads(baseline.read_text())["history"]
    assert [each["reason"] for each in history] == ["first", "step 1", "step 2"]
    arguments = ("--update", "--reason", "a trade", "--forget-oldest")
    assert benchmark_command("gate", new, "--baseline", baseline, *arguments).returncode == 0
    assert benchmark_command("gate", new, "--baseline", baseline).returncode == 0


def test_trajectories_are_compared_one_number_at_a_time(
    benchmark_command: Command, made: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(made / "old", tmp_path / "old"))
    path = run / "cells/dag--style--s0/metrics.jsonl"
    text = path.read_text()
    path.write_text(text.replace('"reward_mean": 0.5', '"reward_mean": 0.50001', 1))
    done = benchmark_command("gate", run, "--baseline", made / "b.json", "--json", "g.json")
    assert done.returncode == 1, done.stdout
    each = found(Path("g.json"))["dag--style: golden trajectory"]
    assert each["verdict"] == "regression" and "2.0e-05" in each["detail"]
    # Another processor rounds otherwise.
    for environment in run.glob("cells/*/environment.json"):
        environment.write_text(environment.read_text().replace("a processor", "another"))
    assert benchmark_command("gate", run, "--baseline", made / "b.json").returncode == 0
    path.write_text(text.replace('"reward_mean": 0.5', '"reward_mean": 0.51', 1))
    assert benchmark_command("gate", run, "--baseline", made / "b.json").returncode == 1
    path.write_text(text.replace("reward_mean", "reward", 1))
    assert benchmark_command("gate", run, "--baseline", made / "b.json").returncode == 2
    done = benchmark_command("gate", made / "new", "--baseline", made / "b.json")
    assert "dag--style--s0 was not run" in done.stdout


def test_no_baseline_is_made_of_failures(
    benchmark_command: Command, new: Path, tmp_path: Path
) -> None:
    status = {"state": "failed", "reason": "out of memory"}
    (new / "cells/dag--style--s20/status.json").write_text(json.dumps(status))
    arguments = ("--baseline", "b.json", "--update", "--reason", "why")
    done = benchmark_command("gate", new, *arguments)
    assert "dag--style--s20 failed: out of memory" in one_line_error(done, 3)
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--baseline", "none.json"), 4, "no such file"),
        ((), 4, "--baseline"),
        (("--baseline", "bad.json"), 3, "damaged"),
        (("--baseline", "newer.json"), 3, "baseline version 2, but this program reads 1"),
        (("--baseline", "b.json", "--update"), 4, "--reason"),
        (("--baseline", "b.json", "--update", "--reason", " "), 4, "--reason"),
        (("--baseline", "b.json", "--reason", "why"), 4, "--update"),
        (("--baseline", "b.json", "--json", "b.json/x"), 4, "cannot write"),
    ],
)
def test_bad_input_is_one_line(
    benchmark_command: Command, made: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    shutil.copy(made / "b.json", "b.json")
    Path("bad.json").write_text('{"kind": "run"')
    content = json.loads((made / "b.json").read_text())
    Path("newer.json").write_text(json.dumps(content | {"baseline_version": 2, "more": 1}))
    before = Path("b.json").read_bytes()
    done = benchmark_command("gate", made / "new", *arguments)
    assert says in one_line_error(done, code)
    assert Path("b.json").read_bytes() == before


def test_a_folder_that_is_no_run_exits_3(benchmark_command: Command, made: Path) -> None:
    done = benchmark_command("gate", made / "nothing", "--baseline", made / "b.json")
    assert "not a results folder" in one_line_error(done, 3)


def test_exactly_the_exit_codes_of_the_page() -> None:
    import re

    from results.gate_verdicts import EXIT_CODES

    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*) \|$", text, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES
