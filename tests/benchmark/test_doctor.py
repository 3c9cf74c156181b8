"""``benchmark doctor``: what it says is so, and its estimate rests on counted work."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

import methods
import rewards
from benchmark import encoders, models, overrides, probe, resolution, suite
from results import metrics
from results.store import read_run
from tests.benchmark.conftest import Command, one_line_error


def findings(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["section"], each["name"]): each for each in json.loads(text)["findings"]}


def test_it_names_all_there_is_and_hashes_the_weights(benchmark_command: Command) -> None:
    done = benchmark_command("doctor", "--json", "--no-probe")
    assert done.returncode == 0, done.stderr
    found = findings(done.stdout)
    for section, known in (
        ("method", methods.registry()),
        ("reward", rewards.registry()),
        ("encoder", encoders.registry()),
        ("metric", metrics.registry()),
    ):
        assert {name for kind, name in found if kind == section} == set(known)
    digest = hashlib.sha256(models.MIXTURE_WEIGHTS.read_bytes()).hexdigest()
    assert digest in found["weights", "mixture"]["detail"]
    assert {name for kind, name in found if kind == "machine"} >= {"memory", "disk", "processor"}
    assert ("extra", "ray") in found and ("time", "emoji") not in found
    # Whatever cannot be used is told with what enables it.
    for (section, name), each in found.items():
        if each["state"] == "optional" and section in ("method", "encoder", "extra"):
            assert each["command"], (section, name)


def test_a_suite_that_cannot_run_here_exits_4(benchmark_command: Command) -> None:
    values = yaml.safe_load((suite.FOLDER / "emoji-quick.yaml").read_text(encoding="utf-8"))
    values["model"]["name"] = "emojj"
    Path("other.yaml").write_text(yaml.safe_dump(values))
    done = benchmark_command("doctor", "--suite", "other.yaml", "--no-probe")
    assert done.returncode == 4
    assert "missing: other.yaml: model.name: unknown model 'emojj'" in done.stdout
    assert "no such file" in one_line_error(benchmark_command("doctor", "--suite", "x.yaml"), 4)


def test_weights_that_a_suite_needs_and_are_not_here(
    benchmark_command: Command, tiny_suite: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """An encoder of the hub, whose cache is empty."""
    values = yaml.safe_load(tiny_suite.read_text())
    values["evaluation"]["encoders"] = ["dinov2"]
    tiny_suite.write_text(yaml.safe_dump(values))
    done = benchmark_command("doctor", "--suite", tiny_suite, "--no-probe", "--json")
    each = findings(done.stdout)["encoder", "dinov2"]
    if each["state"] == "ok":  # somebody has fetched them
        return
    assert done.returncode == 4 and each["state"] == "missing"
    assert each["command"].startswith("hf download ")


def test_the_estimate_counts_what_a_cell_counts(
    benchmark_command: Command, tiny_suite: Path
) -> None:
    """Work is the same on the suite's model as on the one that it is counted on."""
    values, origins = suite.read(str(tiny_suite))
    values["rewards"] = ["colourfulness"]
    values["methods"] |= {
        "dag": {"prompts_per_round": 2, "images_per_prompt": 2},
        "alignprop": {"prompts_per_round": 2, "images_per_prompt": 2},
    }
    tiny_suite.write_text(yaml.safe_dump(values))
    values, origins = suite.read(str(tiny_suite))
    overrides.apply(values, origins, [])
    resolved = resolution.resolve(suite.check(values, origins), origins)
    done = benchmark_command("run", "--suite", tiny_suite, "--out", "run")
    assert done.returncode == 0, done.stderr
    run = read_run(Path("run"))
    for name in ("ddpo", "dag", "alignprop"):
        counts = run.cells[f"{name}--colourfulness--s0"].status.counts
        assert probe.count(resolved, name) == counts.model_dump(), name
    estimate = probe.estimate(resolved)
    assert set(estimate.cells) == set(run.cells)
    assert 0 < max(estimate.cells.values()) <= estimate.seconds <= sum(estimate.cells.values())
    costs = estimate.costs
    assert costs.gradient > costs.forward > 0 and costs.decode > 0 and costs.score > 0
