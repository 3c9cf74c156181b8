"""The README does what it says: its code, its commands, its tables and its links."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from benchmark import cli
from benchmark.errors import EXIT_CODES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("benchmark", "diffusion", "methods", "reports", "results", "rewards")
EXTENDED = ("methods", "rewards")
"""Packages that the README adds a file to."""


def code_blocks(language: str) -> list[str]:
    """Code blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every ``python -m benchmark`` command of the README, set-up before it left out."""
    lines = "".join(code_blocks("bash")).splitlines()
    return [line.split(" && ")[-1] for line in lines if "python -m benchmark" in line]


def table(heading: str) -> list[tuple[str, str]]:
    """The two columns of the table that starts with a heading, without markup."""
    _, _, rest = README.partition(f"| {heading} |")
    rows = rest.split("\n\n", 1)[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ", 1) for row in rows]
    return [(first.strip("`"), second) for first, second in cells]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout with the README's new files in it; weights are linked, not copied."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in PACKAGES:
        if package not in EXTENDED:
            (folder / package).symlink_to(ROOT / package)
            continue
        shutil.copytree(
            ROOT / package,
            folder / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
        )
        for weights in (ROOT / package).rglob("*.safetensors"):
            (folder / weights.relative_to(ROOT)).symlink_to(weights)
    for block in code_blocks("python"):
        path = block.splitlines()[0].removeprefix("# ")
        assert not (ROOT / path).exists(), f"{path} would replace a file of the project"
        (folder / path).write_text(block, encoding="utf-8")
    return folder


def tiny_suite(folder: Path, model: Path) -> Path:
    """A suite of seconds, with room for one training round of the README's method."""
    suite = {
        "name": "tiny",
        "model": {"name": str(model), "sampling_steps": 3, "guidance_scale": 2.0},
        "prompts": {"train": ["a cat", "a dog"], "test": ["a fox", "a lion"]},
        "rewards": ["colourfulness"],
        "methods": {"filtered": {"prompts_per_round": 2, "images_per_prompt": 4}},
        "budget": {"images": 8},
        "evaluation": {"images_per_prompt": 2, "times": 1, "encoders": ["efficientnet-lite0"]},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_folder(checkout: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the README's method on the README's reward, by the README's command."""
    empty = tmp_path_factory.mktemp("empty")
    command = next(line for line in commands() if "benchmark run" in line and "filtered" in line)
    arguments = shlex.split(command.removeprefix("python "))
    suite = tiny_suite(empty, tiny_model)
    finished = subprocess.run(
        [sys.executable, *arguments, "--suite", str(suite), "--out", "run"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return empty / "run"


def test_the_new_method_trains_on_the_new_reward(run_folder: Path) -> None:
    cell = run_folder / "cells" / "filtered--warmth--s0"
    status = json.loads((cell / "status.json").read_text())
    assert status["state"] == "done"
    assert status["counts"]["unet_backward"] > 0
    evaluation = json.loads((cell / "evaluations.jsonl").read_text().splitlines()[-1])
    values = [value for prompt in evaluation["rewards"]["warmth"] for value in prompt]
    assert len(values) == 4
    assert all(-1 <= value <= 1 for value in values)
    assert any(value != 0 for value in values)
    lora = load_file(cell / "lora" / "pytorch_lora_weights.safetensors")
    outputs = [tensor for name, tensor in lora.items() if "lora_B" in name or "lora.up" in name]
    assert outputs
    assert any(tensor.abs().max() > 0 for tensor in outputs), "training changed nothing"


def test_the_new_reward_is_what_it_says(checkout: Path, tmp_path: Path) -> None:
    program = (
        "import torch, rewards\n"
        "reward = rewards.load('warmth')\n"
        "red, blue = torch.zeros(2, 1, 3, 8, 8)\n"
        "red[:, 0], blue[:, 2] = 1, 1\n"
        "images = torch.cat([red, blue, torch.full((1, 3, 8, 8), 0.5)])\n"
        "print(reward(images, ['a fox'] * 3).tolist())\n"
        "images.requires_grad_()\n"
        "reward.differentiable_score(images, ['a fox'] * 3).sum().backward()\n"
        "print((images.grad[:, 0] > 0).all().item(), (images.grad[:, 2] < 0).all().item())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.stdout.splitlines() == ["[1.0, -1.0, 0.0]", "True True"], finished.stderr


def test_a_run_leaves_every_file_of_the_table(run_folder: Path) -> None:
    rows = [path for path, _ in table("file")]
    assert len(rows) > 8
    for path in rows:
        pattern = path.replace("<cell>", "filtered--warmth--s0").replace("<p>-<i>", "*-*")
        pattern = pattern.replace("<round>", "1").replace("<metric>", "vendi")
        assert list(run_folder.glob(pattern)), f"{path} is not there"
    named = {path.split("/")[2] for path in rows if path.startswith("cells/")}
    found = {path.name for path in (run_folder / "cells" / "filtered--warmth--s0").iterdir()}
    assert found == named, "the table and the folder of a cell differ"


@pytest.mark.parametrize("command", [c for c in commands() if "filtered" not in c])
def test_commands_are_accepted(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)[3:]
    expected = 0
    if arguments[0] == "run" and "--dry-run" not in arguments:
        arguments.append("--dry-run")
    elif arguments[0] in ("report", "compare", "measure", "sample", "status"):
        expected = 3  # there is no such run here
    elif arguments[0] == "gate":
        expected = 4  # nor such a baseline
    elif arguments[0] == "calibrate":
        arguments += ["--prompts", "12", "--images", "2"]
    elif arguments[0] == "doctor":
        arguments.append("--no-probe")
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    output = capsys.readouterr()
    assert exit_.value.code == expected, output.err
    assert not list(tmp_path.iterdir())


def test_exit_codes_are_those_of_the_program() -> None:
    assert [(int(code), meaning.rstrip(" |")) for code, meaning in table("exit code")] == list(
        EXIT_CODES.items()
    )


def documents() -> list[Path]:
    """All Markdown files that people are meant to read."""
    folders = [path for package in PACKAGES for path in (ROOT / package).rglob("*.md")]
    return [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *folders]


def test_links_lead_to_files() -> None:
    broken = []
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert not broken


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        path.name
        for path in (ROOT / "docs").glob("*.md")
        if path.name != "index.md" and f"({path.name}" not in index
    ]
    assert not missing
