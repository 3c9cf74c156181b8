"""TRL's trainers through the command line, and what is said where TRL is not installed."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import yaml

import methods
from results import store
from tests.benchmark.conftest import Command, one_line_error, run_command

ROUND = {"prompts_per_round": 2, "images_per_prompt": 2}
IMAGES = 8


def test_a_run_of_both(tmp_path: Path, tiny_suite: Path) -> None:
    if reason := methods.get("trl-ddpo").unavailable():
        pytest.skip(f"trl-ddpo {reason}")
    suite = yaml.safe_load(tiny_suite.read_text(encoding="utf-8"))
    ddpo = {**ROUND, "timestep_fraction": 1.0}
    as_trl = {"initial_noise": "independent", "inner_epochs": 1, "updates_per_round": 2}
    suite["methods"] = {"ddpo": {**ddpo, **as_trl}, "trl-ddpo": ddpo, "trl-alignprop": ROUND}
    suite["rewards"] = ["colourfulness"]
    tiny_suite.write_text(yaml.safe_dump(suite), encoding="utf-8")
    done = run_command(tmp_path, "run", "--suite", tiny_suite, "--workers", "1")
    assert done.returncode == 0, done.stderr

    run = store.read_run(tmp_path / "runs" / "tiny-001")
    ours, theirs, backpropagated = (
        run.cells[f"{name}--colourfulness--s0"] for name in ("ddpo", "trl-ddpo", "trl-alignprop")
    )
    for cell in (ours, theirs, backpropagated):
        assert cell.status.state == "done", cell.status.reason
        assert cell.status.counts.images == IMAGES
        assert cell.status.counts.optimizer_steps == 4
    # Both cost the same and begin with the same pictures.
    assert theirs.status.counts == ours.status.counts
    first, second = (cell.rounds[0].metrics["reward_mean"] for cell in (ours, theirs))
    assert first == pytest.approx(second, rel=1e-4)
    assert theirs.rounds[1].metrics != theirs.rounds[0].metrics
    assert {"sample", "decode", "reward", "loss"} <= theirs.status.seconds_by_phase.keys()
    assert (theirs.folder / "lora" / "pytorch_lora_weights.safetensors").is_file()
    left_behind = {path.name for path in tmp_path.iterdir()} - {"runs", tiny_suite.name}
    assert not left_behind


def test_a_check_says_what_it_does_not_do(benchmark_command: Command) -> None:
    if reason := methods.get("trl-ddpo").unavailable():
        pytest.skip(f"trl-ddpo {reason}")
    done = benchmark_command("check", "trl-ddpo")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    inapplicable = [line for line in lines if not line.startswith("passed: ")]
    assert [line.rpartition(": ")[2] for line in inapplicable] == [
        "it is declared to compare with densities of unrounded latents",
        "it trains in one process alone, and refuses two",
    ]
    assert last == f"trl-ddpo: {len(lines) - 2} checks passed, 2 not applicable"


def test_without_trl_it_is_said_what_to_install(
    benchmark_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "trl":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    error = one_line_error(benchmark_command("run", "--methods", "trl-ddpo", "--dry-run"), 4)
    assert "method 'trl-ddpo' needs the package trl, which is not installed" in error
    assert error.endswith("pip install trl==0.23.1")
    error = one_line_error(benchmark_command("check", "trl-alignprop"), 4)
    assert error == (
        "error: trl-alignprop needs the package trl, which is not installed: "
        "pip install trl==0.23.1"
    )
    listed = benchmark_command("list", "methods")
    assert listed.returncode == 0 and "trl-ddpo" in listed.stdout and "extra trl" in listed.stdout
