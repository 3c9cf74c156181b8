"""The exact testbed through the command line."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmark import density, resolution, suite
from benchmark.models import output
from diffusion.ledger import Ledger
from diffusion.mixture import load_mixture
from methods import Target
from results import density as grids
from results.store import features_path, load_density, load_features, read_run
from rewards import load, registry
from tests.benchmark.conftest import Command, one_line_error

SMALL = {"prompts_per_round": 1, "images_per_prompt": 32, "micro_batch_size": 32}


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    """The suite of the program, made small: two rounds, few steps and points."""
    values = yaml.safe_load((suite.FOLDER / "mixture.yaml").read_text(encoding="utf-8"))
    values["name"] = "small"
    values["model"]["sampling_steps"] = 4
    values["rewards"] = ["point_modes", "colourfulness"]
    values["methods"] = {
        "residual-db": SMALL | {"beta": 2.0, "beta_unit": "sum", "reduction": "sum"},
        "ddpo-sf": SMALL,
    }
    values["seeds"] = [0, 1]
    values["budget"]["images"] = 64
    values["evaluation"] |= {"images_per_prompt": 16, "times": 1, "exact_points": 2000}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_run_measures_every_method_against_its_target(
    benchmark_command: Command, small_suite: Path
) -> None:
    done = benchmark_command("run", "--suite", small_suite, "--out", "run", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "distance to the declared target" in done.stdout
    assert "p_base exp(2 r)" in done.stdout and "none, it maximises" in done.stdout
    run = read_run(Path("run"))
    for cell in run.cells.values():
        if cell.reward == "colourfulness":
            assert cell.status.state == "not_applicable"
            assert cell.status.reason == "colourfulness scores images, and the model makes points"
            continue
        assert cell.status.state == "done", cell.status
        record = cell.evaluations[-1].density
        assert record is not None
        last = cell.evaluations[-1]
        assert set(last.rewards) == {"point_linear", "point_bump", "point_modes"}
        assert list(last.diversity) == ["direction"]
        assert last.bad_images == {"non_finite": 0}
        assert last.image_statistics == {} and last.path_kl == []
        features = load_features(features_path(cell.folder, last.round))
        assert features["direction"].shape == (1, 16, 2)
        assert record.points == (16 if cell.method == "best-of-n" else 2000)
        declared = cell.method in ("base", "residual-db")
        assert (record.total_variation is not None) == declared
        assert ("target" in load_density(cell.folder)) == declared
    base, residual = (
        run.cells[f"{name}--s0"].evaluations[-1].density
        for name in ("base--none", "residual-db--point_modes")
    )
    assert base is not None and residual is not None
    assert base.total_variation == base.base_total_variation
    assert base.modes == 8 and residual.beta == 2.0
    assert_page_shows_densities(Path("run/report.html").read_text(encoding="utf-8"))


def assert_page_shows_densities(page: str) -> None:
    tables = re.findall(r'<table data-densities="(\w+)"', page)
    assert tables == ["point_modes"]
    section = page[page.index('id="densities"') : page.index('id="cost"')]
    pictures = re.findall(r'<img class="density" src="data:image/png;base64,([^"]+)"', section)
    # base, best-of-n, residual-db, ddpo-sf; two of them have a target beside.
    assert len(pictures) == 6
    assert all(base64.b64decode(each).startswith(b"\x89PNG") for each in pictures)
    assert 'data-metric="total_variation"' in section
    assert 'id="pictures"' not in page and 'href="#pictures"' not in page


def test_the_same_seed_gives_the_same_numbers(
    benchmark_command: Command, small_suite: Path
) -> None:
    command = ["run", "--suite", small_suite, "--methods", "residual-db", "--seeds", "0"]
    for folder in ("a", "b"):
        arguments = ["--rewards", "point_modes", "--workers", "1", "--out", folder]
        assert benchmark_command(*command, *arguments).returncode == 0
    first, second = (
        json.loads(Path(f"{f}/cells/residual-db--point_modes--s0/evaluations.jsonl").read_text())
        for f in ("a", "b")
    )
    for record in (first, second):
        for measured in ("training_seconds", "sampling_images_per_second", "peak_memory_bytes"):
            assert record.pop(measured) > 0
    assert first == second


def test_a_point_reward_does_not_apply_to_an_image_model(
    benchmark_command: Command, tiny_suite: Path
) -> None:
    done = benchmark_command(
        "run", "--suite", tiny_suite, "--rewards", "point_bump,colourfulness", "--dry-run"
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "ddpo--point_bump--s0" in line)
    assert "not applicable: point_bump scores points, and the model makes images" in line


@pytest.mark.parametrize(("name", "kind"), [("mixture", "point"), ("emoji", "image")])
def test_rewards_judge_only_what_the_model_makes(name: str, kind: str) -> None:
    values, origins = suite.read(name)
    values["rewards"] = [*values["rewards"], "point_bump", "colourfulness"]
    values["rewards"] = list(dict.fromkeys(values["rewards"]))
    resolved = resolution.resolve(suite.check(values, origins), origins)
    of_kind = {name for name, reward in registry().items() if reward.scores == kind}
    assert set(resolved.judges) | set(resolved.unscored) == of_kind
    assert set(resolved.judges) >= {"point_bump" if kind == "point" else "colourfulness"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("evaluation.encoders=[scorer]", "scorer looks at images, and model 'mixture' makes"),
        ("model.guidance_scale=3", "model.guidance_scale: model 'mixture' takes 1.0 only"),
        ("model.trainable=lora", "model.trainable: model 'mixture' takes full only"),
        ("model.dtype=bfloat16", "model.dtype: model 'mixture' takes float32 only"),
        ("model.name=mixtur", "did you mean 'mixture'"),
    ],
)
def test_settings_that_the_model_cannot_follow_are_refused(
    benchmark_command: Command, change: str, says: str
) -> None:
    done = benchmark_command("run", "--suite", "mixture", "--set", change, "--dry-run")
    assert says in one_line_error(done, 4)


def test_image_models_have_no_learned_variance(
    benchmark_command: Command, tiny_suite: Path
) -> None:
    for change, says in (
        ("model.variance=learned", "takes posterior only"),
        ("evaluation.encoders=[direction]", "direction looks at points"),
    ):
        done = benchmark_command("run", "--suite", tiny_suite, "--set", change, "--dry-run")
        assert says in one_line_error(done, 4)


def test_the_suite_plans_every_method_on_every_reward(benchmark_command: Command) -> None:
    done = benchmark_command("run", "--suite", "mixture", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "not applicable" not in done.stdout
    assert done.stdout.count("residual-db--") == 15


def test_what_models_make() -> None:
    assert [output(name) for name in ("mixture", "emoji", "some/folder")] == [
        "point",
        "image",
        "image",
    ]


@pytest.mark.parametrize("name", ["point_linear", "point_bump", "point_modes"])
def test_targets_are_the_formulas_they_are_called_by(name: str) -> None:
    """Cell probabilities against the formula evaluated at points of a much finer grid."""
    policy = load_mixture(ledger=Ledger(), sampling_steps=5)
    reward = load(name)
    base, values = density.log_densities(policy, reward)
    n = 480
    axis = torch.linspace(-3, 3, n + 1, dtype=torch.float64)[:-1] + 3 / n
    fine = torch.cartesian_prod(axis, axis)
    score = reward(fine.float(), [""] * len(fine)).double()
    for target in (Target(True, None), Target(True, 2.0), Target(False, 2.0)):
        log_density = (policy.base_log_density(fine) if target.base else 0) + (
            (target.beta or 0) * score
        )
        p = log_density.exp().reshape(grids.CELLS, n // grids.CELLS, grids.CELLS, -1).sum((1, 3))
        found = density.target_grid(target, base, values)
        assert found is not None
        assert np.abs(found - (p / p.sum()).numpy()).sum() < 2e-3
    assert density.target_grid(Target(False, None), base, values) is None
