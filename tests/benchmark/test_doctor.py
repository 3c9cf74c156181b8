"""``benchmark doctor``: what it says is so, and its estimate rests on counted work."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import methods
import rewards
from benchmark import (
    capacity,
    detectors,
    encoders,
    environment,
    models,
    probe,
    resolution,
    suite,
)
from benchmark.validation import Origins
from results import metrics
from results.store import read_run
from tests.benchmark.conftest import ROOT, Command, one_line_error


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
        ("metric", {**metrics.registry(), **detectors.registry()}),
    ):
        assert {name for kind, name in found if kind == section} == set(known)
    digest = hashlib.sha256(models.MIXTURE_WEIGHTS.read_bytes()).hexdigest()
    assert digest in found["weights", "mixture"]["detail"]
    assert {name for kind, name in found if kind == "machine"} >= {"memory", "disk", "processor"}
    assert ("extra", "ray") in found and ("time", "emoji") not in found
    # Whatever cannot be used is told with what enables it.
    for (section, name), each in found.items():
        if each["state"] == "optional" and section in ("method", "encoder", "metric", "extra"):
            assert each["command"], (section, name)


def test_a_suite_that_cannot_run_here_exits_4(benchmark_command: Command) -> None:
    values = yaml.safe_load((suite.FOLDER / "emoji-quick.yaml").read_text(encoding="utf-8"))
    values["model"]["name"] = "emojj"
    Path("other.yaml").write_text(yaml.safe_dump(values))
    done = benchmark_command("doctor", "--suite", "other.yaml", "--no-probe")
    assert done.returncode == 4
    assert "missing: other.yaml: " in done.stdout
    assert re.search(r"other\.yaml:\d+: model\.name: unknown model 'emojj'", done.stdout)
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
    assert each["command"] == "python -m benchmark fetch dinov2"


def resolved_suite(values: dict[str, Any], origins: Origins) -> resolution.ResolvedSuite:
    return resolution.resolve(suite.check(values, origins), origins)


def test_the_estimate_counts_what_real_cells_counted() -> None:
    """Work is the same on the suite's model as on the one that it is counted on: cells of the
    reference results, with their own options."""
    run = read_run(ROOT / "docs" / "reference" / "emoji")
    values = {k: v for k, v in run.record.suite_config.items() if k in suite.Suite.model_fields}
    resolved = resolved_suite(values, Origins(run.folder, {}))
    trained = [name for name, kind in resolved.methods.items() if kind.trains]
    assert len(trained) >= 2
    for name in trained:
        counts = run.cells[f"{name}--style--s0"].status.counts
        assert probe.count(resolved, name) == counts.model_dump(), name


def test_an_estimate_of_a_suite(tiny_suite: Path) -> None:
    resolved = resolved_suite(*suite.read(str(tiny_suite)))
    estimate = probe.estimate(resolved)
    assert set(estimate.cells) == {cell.id for cell in resolved.cells()}
    assert 0 < max(estimate.cells.values()) <= estimate.seconds <= sum(estimate.cells.values())
    costs = estimate.costs
    assert costs.gradient > costs.forward > 0 and costs.decode > 0 and costs.score > 0
    # Trained cells do more than base, by about what the ledger counts.
    count = probe.count(resolved, "ddpo")
    more = estimate.cells["ddpo--colourfulness--s0"] - estimate.cells["base--none--s0"]
    assert more > count["unet_backward"] * costs.gradient


def test_the_processes_of_a_cell_have_room(
    benchmark_command: Command, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load(tiny_suite.read_text())
    values["model"]["processes"] = 2
    tiny_suite.write_text(yaml.safe_dump(values))
    command = ("doctor", "--suite", tiny_suite, "--no-probe", "--json")
    monkeypatch.setattr(environment, "cores", lambda: 2)
    done = benchmark_command(*command)
    detail = "2 processes train a cell, 2 threads on 2 cores"
    assert findings(done.stdout)["suite", "model.processes"]["detail"] == detail
    monkeypatch.setattr(capacity, "shortage", lambda model: "2 processes need a GPU each")
    done = benchmark_command(*command)
    assert done.returncode == 4
    assert findings(done.stdout)["suite", "model.processes"]["state"] == "missing"
