"""What only a GPU can show; everything else of the tests is about the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import methods
from tests.benchmark.conftest import run_command, write_suite

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

PRECISIONS: dict[str, dict[str, object]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "economical": {"gradient_checkpointing": True, "vae_slicing": True, "attention": "sliced"},
    "compiled": {"compile": True},
}


def suite_on(device: str, model: Path, folder: Path, **settings: object) -> Path:
    """The tiny suite with the tiny model on a device."""
    folder.mkdir(exist_ok=True)
    path = write_suite(folder, model)
    suite = yaml.safe_load(path.read_text())
    suite["model"] |= {"device": device, **settings}
    suite["budget"]["images"] = 32  # a round of DAG-KL
    path.write_text(yaml.safe_dump(suite))
    return path


def available() -> list[str]:
    """Methods that need no package of their own, controls included."""
    return [name for name in methods.registry() if not name.startswith("trl-")]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_method_trains(tiny_model: Path, tmp_path: Path, precision: str) -> None:
    suite = suite_on("cuda", tiny_model, tmp_path, **PRECISIONS[precision])
    names = ",".join(available())
    done = run_command(tmp_path, "run", "--suite", suite, "--methods", names, "--out", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in (tmp_path / "run" / "cells").iterdir():
        status = json.loads((folder / "status.json").read_text())
        assert status["state"] in ("done", "not_applicable"), status
        if status["state"] == "done":
            assert status["peak_gpu_allocated_bytes"] > 0


def test_the_same_noise_as_on_the_cpu(tiny_model: Path, tmp_path: Path) -> None:
    """Untrained pictures differ by rounding alone."""
    rewards = {}
    for device in ("cpu", "cuda"):
        suite = suite_on(device, tiny_model, tmp_path / device)
        done = run_command(
            tmp_path, "run", "--suite", suite, "--methods", "base", "--out", tmp_path / device
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (cell,) = (tmp_path / f"{device}-run" / "cells").iterdir()
        first = json.loads((cell / "evaluations.jsonl").read_text().splitlines()[0])
        rewards[device] = torch.tensor(first["rewards"]["colourfulness"])
    torch.testing.assert_close(rewards["cuda"], rewards["cpu"], rtol=0.02, atol=2e-3)
