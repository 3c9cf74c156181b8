"""``benchmark calibrate``: the path of the published calibration, proved on embedded models."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rewards
from benchmark import calibration, calibrations, encoders
from benchmark.calibration import Calibration, StoredValue
from benchmark.prompt_sets import SETS
from benchmark.yaml_file import parse
from tests.benchmark.conftest import Command, one_line_error, run_command

HEAD = """\
# A comment that stays.
name: small
origin: measured
model: {{name: {model}, sampling_steps: 2, guidance_scale: 2, device: cpu}}
prompts: {prompts}
images_per_prompt: 3
batch_size: 5
rewards: [colourfulness, jpeg_compressibility]
encoders: [efficientnet-lite0]
"""


@pytest.fixture(scope="module")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A calibration of a model of random weights on five prompts, its values measured."""
    folder = tmp_path_factory.mktemp("calibration")
    prompts = folder / "five.txt"
    prompts.write_text("a cat\na dog\na fox\nan owl\na lion\n")
    path = folder / "small.yaml"
    path.write_text(HEAD.format(model=tiny_model, prompts=prompts))
    done = run_command(folder, "calibrate", path, "--update", "--seed", "7", "--images", "4")
    assert done.returncode == 0, done.stderr
    assert "20 images a sampler, 4 a prompt, seed 7" in done.stdout
    return path.read_text()


@pytest.fixture
def small(measured: str, tmp_path: Path) -> Path:
    """A copy of it."""
    path = tmp_path / "small.yaml"
    path.write_text(measured)
    return path


def changed(path: Path, **values: Any) -> Path:
    """The file with keys of its head or its stored values changed."""
    content = parse(path.read_text(), path)
    for key, value in values.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def stored(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = parse(path.read_text(), path)["stored"]
    return found


def shifted(path: Path, out: Path, reward: str, by: float, paired: bool = True) -> Path:
    """A copy whose stored values of one reward are wrong, with or without those of prompts."""
    content = parse(path.read_text(), path)
    for values in content["stored"]["rewards"].values():
        for value in values["values"]:
            if not paired:
                del value["by_prompt"]
    for value in content["stored"]["rewards"][reward]["values"]:
        value["value"] += by
        if paired:
            value["by_prompt"] = [each + by for each in value["by_prompt"]]
    out.write_text(yaml.safe_dump(content, sort_keys=False))
    return out


def test_the_embedded_model_agrees_with_what_is_stored_of_it(
    benchmark_command: Command, tmp_path: Path
) -> None:
    """Every score of both samplers, from other noise than the stored values are of."""
    done = benchmark_command(
        "calibrate", "emoji", "--prompts", "8", "--images", "3", "--out", "found.json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    file = calibration.read(calibrations.find("emoji"))
    assert len(found["scores"]) == len(found["prompts"]) * 12 / 8 == 12
    assert {score["eta"] for score in found["scores"]} == {0, 1}
    assert found["seed"] == file.seed and file.stored is not None
    assert found["model"] == file.stored.model, "the values are of other weights"
    for score in found["scores"]:
        assert score["verdict"] in ("agrees", "doubtful") and score["paired"]
        assert abs(score["difference"]) > 0 and score["standard_error"] > 0
        ratio = score["difference"] / score["standard_error"]
        assert score["in_standard_errors"] == pytest.approx(ratio)
        assert score["difference"] == pytest.approx(score["measured"] - score["stored"])
        assert score["measured"] == pytest.approx(
            math.fsum(score["measured_by_prompt"]) / 8, rel=1e-9
        )
    assert sum(score["verdict"] == "agrees" for score in found["scores"]) >= 9
    assert "standard error over prompts" in done.stdout
    assert "clip_score" in done.stdout and "diversity, scorer" in done.stdout


def test_a_wrong_stored_value_differs_and_the_exit_code_says_so(
    small: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    right = benchmark_command("calibrate", small)
    assert right.returncode == 0, right.stdout + right.stderr
    assert "6 agrees" in right.stdout
    wrong = shifted(small, tmp_path / "wrong.yaml", "colourfulness", 0.5)
    done = benchmark_command("calibrate", wrong, "--out", "out.json")
    message = one_line_error(done, 6)
    assert "2 of 6 scores differ" in message
    assert "colourfulness at eta 0" in message and "jpeg" not in message
    scores = json.loads((tmp_path / "out.json").read_text())["scores"]
    assert [s["name"] for s in scores if s["verdict"] == "differs"] == ["colourfulness"] * 2
    assert "4 agrees, 2 differs" in done.stdout


def test_published_values_have_no_prompts_to_pair(
    small: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    """As ``sd15`` has them: mean and standard error. The noise alone is told beside."""
    apart = shifted(small, tmp_path / "apart.yaml", "colourfulness", 0.0, paired=False)
    done = benchmark_command("calibrate", apart, "--out", "out.json")
    assert done.returncode == 0, done.stderr
    assert "in SEs of noise" in done.stdout and "Compared as two samples" in done.stdout
    scores = json.loads((tmp_path / "out.json").read_text())["scores"]
    for score in (score for score in scores if score["kind"] == "reward"):
        assert not score["paired"]
        total = math.hypot(score["measured_standard_error"], score["stored_standard_error"])
        assert score["standard_error"] == pytest.approx(total)
        assert abs(score["in_standard_errors_of_noise"]) > 0
    some = benchmark_command("calibrate", apart, "--prompts", "4")
    assert "in SEs of noise" not in some.stdout, "of other prompts noise is not all"
    far = shifted(small, tmp_path / "far.yaml", "colourfulness", 0.5, paired=False)
    one_line_error(benchmark_command("calibrate", far), 6)


def test_values_measured_anew_are_the_same_and_the_head_stays(
    small: Path, benchmark_command: Command
) -> None:
    before = small.read_text()
    assert before.startswith("# A comment that stays.\nname: small\n")
    content = stored(small)
    assert content["prompts"] == 5 and content["images_per_prompt"] == 4 and content["seed"] == 7
    values = content["rewards"]["colourfulness"]["values"]
    assert [value["eta"] for value in values] == [0, 1]
    for value in values:
        assert len(value["by_prompt"]) == 5
        assert value["value"] == pytest.approx(sum(value["by_prompt"]) / 5, rel=1e-5)
    done = benchmark_command("calibrate", small, "--update", "--seed", "7", "--images", "4")
    assert done.returncode == 0 and small.read_text() == before


def test_a_file_whose_values_are_not_last_is_left_alone(
    small: Path, benchmark_command: Command
) -> None:
    text = small.read_text() + "differs_above: 4\n"
    small.write_text(text)
    done = benchmark_command("calibrate", small, "--update", "--seed", "2", "--images", "2")
    assert "'stored' has to be the last key" in one_line_error(done, 4)
    assert small.read_text() == text


def test_another_model_is_compared_with_the_same_values(
    small: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    done = benchmark_command("calibrate", small, "--model", "emoji", "--prompts", "3")
    assert "colourfulness" in one_line_error(done, 6)


def test_another_version_is_not_compared(
    small: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    content = stored(small)
    content["rewards"]["colourfulness"]["version"] = "0"
    changed(small, stored=content)
    done = benchmark_command("calibrate", small)
    assert done.returncode == 0 and "4 agrees, 2 not compared" in done.stdout
    assert "colourfulness is version 1 here, and was 0" in done.stdout
    content["rewards"]["jpeg_compressibility"]["version"] = "0"
    content["diversity"]["efficientnet-lite0"]["version"] = "0"
    changed(small, stored=content)
    done = benchmark_command("calibrate", small)
    assert "nothing can be compared" in one_line_error(done, 3)


def test_sd15_without_weights_names_the_command_that_fetches_them(
    benchmark_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    message = one_line_error(benchmark_command("calibrate", "sd15"), 4)
    assert "reward 'image_reward_v1' needs weights that are not here" in message
    assert "`python -m benchmark fetch image_reward_v1` fetches them" in message


def test_sd15_runs_to_its_end_on_stand_ins(
    benchmark_command: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as it is: a model of random weights, a reward and an encoder that are here under the
    names of those that are not, and prompts of this test's own."""
    colourfulness = rewards.load("colourfulness")
    load = encoders.load
    monkeypatch.setattr("rewards.load", lambda name: colourfulness)
    monkeypatch.setattr(encoders, "load", lambda name, device: load("efficientnet-lite0", device))
    monkeypatch.setattr(encoders, "version", lambda name: "stand-in")
    name = "imagereward-benchmark"
    monkeypatch.setitem(SETS, name, dataclasses.replace(SETS[name], sha256=""))
    (tmp_path / "prompts").mkdir()
    prompts = [{"id": str(i), "prompt": f"a cat no. {i}"} for i in range(100)]
    (tmp_path / "prompts" / "benchmark-prompts.json").write_text(json.dumps(prompts))
    smaller = ("--model", tiny_model, "--device", "cpu", "--prompts", "4", "--images", "3")
    done = benchmark_command("calibrate", "sd15", *smaller, "--out", "out.json")
    assert "of 8 scores differ" in one_line_error(done, 6)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["prompts"] == [f"a cat no. {i}" for i in (0, 25, 50, 75)]
    assert found["sampler"] == {"sampling_steps": 50, "guidance_scale": 7.5}
    of = {(score["name"], score["eta"]): score for score in found["scores"]}
    assert of["image_reward_v1", 1]["stored"] == 0.1938
    assert of["dreamsim-ensemble", 0]["stored"] == 0.4025
    assert len(of) == 8 and not any(score["paired"] for score in of.values())
    assert "microsoft/soc-fine-tuning-sd" in done.stdout


def test_sd15_holds_the_published_rows() -> None:
    file = calibration.read(calibrations.find("sd15"))
    rows = {
        "image_reward_v1": (0.126, 0.194, 0.075),
        "clip_l14": (0.277, 0.279, 0.0034),
        "hpsv2.1": (0.2417, 0.2436, 0.003),
        "dreamsim-ensemble": (0.4025, 0.3862, 0.011),
    }
    assert [*file.rewards, *file.encoders] == list(rows)
    for name, (still, noisy, error) in rows.items():
        kind: Any = "reward" if name in file.rewards else "diversity"
        values: list[StoredValue] = [file.stored_value(kind, name, eta)[1] for eta in (0, 1)]
        assert values[0].value == pytest.approx(still, abs=5e-4)
        assert values[1].value == pytest.approx(noisy, abs=5e-4)
        for value in values:
            assert value.standard_error == pytest.approx(error, rel=0.07)
    assert (file.model.sampling_steps, file.model.guidance_scale) == (50, 7.5)
    assert (file.agrees_within, file.differs_above) == (2, 3)
    assert SETS[file.prompts].count == 100 and file.images_per_prompt == 10


@pytest.mark.parametrize("name", calibrations.names())
def test_what_a_calibration_names_is_there(name: str) -> None:
    file = calibration.read(calibrations.find(name))
    assert file.name == name and file.description and file.stored is not None
    assert set(file.rewards) <= set(rewards.registry())
    assert set(file.encoders) <= set(encoders.registry())
    assert file.prompts in SETS
    if file.origin == "measured":
        assert file.stored.conditions == file.conditions(file.read_prompts())
        assert file.stored.seed not in (None, file.seed)


def test_calibrations_can_be_found(benchmark_command: Command) -> None:
    text = benchmark_command("calibrate", "--help").stdout
    listed = benchmark_command("list", "calibrations").stdout
    for name in ("emoji", "sd15"):
        assert name in text and name in listed
    message = one_line_error(benchmark_command("calibrate", "emojis"), 4)
    assert "did you mean 'emoji'?" in message and "known: emoji, sd15" in message
    assert "no such file" in one_line_error(benchmark_command("calibrate", "a.yaml"), 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "7"], "--seed 7: the stored values were measured with this noise"),
        (["--prompts", "6"], "--prompts 6: calibration small has 5"),
        (["--prompts", "1"], "--prompts"),
        (["--images", "1"], "--images"),
        (["--model", "mixture"], "it makes points"),
        (["--model", "emojy"], "did you mean 'emoji'"),
        (["--update"], "--update needs --seed N, another than 0"),
        (["--update", "--seed", "0"], "--update needs --seed N, another than 0"),
        (["--update", "--seed", "2", "--prompts", "3"], "on all of its prompts"),
        (["--update", "--seed", "2", "--model", "emoji"], "the calibration's own model"),
        (["--update", "--seed", "2", "--out", "a.json"], "--out goes without --update"),
        (["--out", "small.yaml/a.json"], "cannot write small.yaml/a.json"),
    ],
)
def test_options_that_cannot_be(
    small: Path, benchmark_command: Command, options: list[str], said: str
) -> None:
    before = small.read_text()
    assert said in one_line_error(benchmark_command("calibrate", small, *options), 4)
    assert small.read_text() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stored": None}, "has no stored values; --update adds them"),
        ({"imagez": 3}, "unknown key 'imagez'"),
        ({"etas": [0]}, "stored.rewards.colourfulness needs a value for each of etas"),
        ({"rewards": ["colourfulness"]}, "stored.rewards and what is measured differ"),
        ({"rewards": [], "encoders": []}, "there is nothing to measure"),
        ({"differs_above": 1}, "differs_above has to be at least agrees_within"),
        ({"model": {"name": "emoji", "eta": 1}}, "they sample at each of etas"),
        ({"prompts": "animals-trian"}, "did you mean 'animals-train'"),
        ({"model": {"name": "emoji", "sampling_steps": 3}}, "other prompts or another sampler"),
        ({"rewards": ["colour"], "stored": None}, "has no stored values"),
    ],
)
def test_files_that_cannot_be(
    small: Path, benchmark_command: Command, changes: dict[str, Any], said: str
) -> None:
    message = one_line_error(benchmark_command("calibrate", changed(small, **changes)), 4)
    assert said in message


def test_unknown_scores_are_told_with_the_nearest(small: Path, benchmark_command: Command) -> None:
    update = ("--update", "--seed", "1")
    changed(small, rewards=["colourfulnes"], stored=None)
    message = one_line_error(benchmark_command("calibrate", small, *update), 4)
    assert "unknown reward 'colourfulnes'; did you mean 'colourfulness'?" in message
    changed(small, rewards=["colourfulness"], encoders=["scorrer"])
    message = one_line_error(benchmark_command("calibrate", small, *update), 4)
    assert "unknown encoder 'scorrer'; did you mean 'scorer'?" in message


def test_images_that_are_not_finite_are_no_calibration(
    small: Path, benchmark_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diffusion.latent_diffusion.LatentDiffusion.decode",
        lambda self, latents: torch.full((len(latents), 3, 64, 64), math.nan),
    )
    message = one_line_error(benchmark_command("calibrate", small, "--prompts", "2"), 3)
    assert "colourfulness of the images at eta 0 is not finite" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(small: Path, benchmark_command: Command) -> None:
    message = one_line_error(benchmark_command("calibrate", small, "--device", "cuda"), 4)
    assert "--device cuda: there is no GPU" in message


def test_published_values_are_not_replaced(benchmark_command: Command) -> None:
    before = calibrations.find("sd15").read_text()
    done = benchmark_command("calibrate", "sd15", "--update", "--seed", "1")
    assert "its values are published ones" in one_line_error(done, 4)
    assert calibrations.find("sd15").read_text() == before


def test_every_key_says_what_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    section = page[page.index("## calibrate") : page.index("## doctor")]
    missing = [key for key in Calibration.model_fields if f"`{key}`" not in section]
    assert not missing
