"""The command line, in this process or its own, and a suite that takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmark import cli

ROOT = Path(__file__).parents[2]

Command = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Variables for a child process that imports this checkout and takes one core."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run_command(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``python -m benchmark`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The error of a command that failed as documented."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def write_suite(folder: Path, model: Path) -> Path:
    """A suite file on the tiny model: two rounds of training, two evaluations."""
    suite = {
        "name": "tiny",
        "model": {"name": str(model), "sampling_steps": 3, "guidance_scale": 2.0, "device": "cpu"},
        "prompts": {
            "train": ["a cat, noto style", "a dog, noto style", "a fox, fluent style"],
            "validation": ["a bear, noto style", "an owl, fluent style"],
            "test": ["a cat, fluent style", "a lion, noto style, on a red background"],
        },
        "rewards": ["jpeg_compressibility", "colourfulness"],
        "methods": {
            "ddpo": {"prompts_per_round": 2, "images_per_prompt": 2, "timestep_fraction": 1.0}
        },
        "seeds": [0],
        "budget": {"images": 8},
        "evaluation": {
            "images_per_prompt": 2,
            "times": 2,
            "checkpoint": "best-on-validation",
            "batch_size": 3,
            "encoders": ["efficientnet-lite0"],
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def benchmark_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The command line in this process and an empty folder, which saves importing torch anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        output, errors = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, end.value.code, output, errors)

    return run


@pytest.fixture
def tiny_suite(tmp_path: Path, tiny_model: Path) -> Path:
    """See ``write_suite``."""
    return write_suite(tmp_path, tiny_model)
