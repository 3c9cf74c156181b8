"""Loading a model: one way for every name, and one line when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusion.ledger import Ledger
from diffusion.pipelines import EMBEDDED, ModelError, load_pipeline, load_policy, model_path


@pytest.fixture
def damaged(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def fails_in_one_line(name: str) -> str:
    with pytest.raises(ModelError) as raised:
        load_pipeline(name)
    message = str(raised.value)
    assert repr(name) in message
    assert "\n" not in message and len(message) > len(repr(name)) + 20
    return message


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(damaged: Path, file: str) -> None:
    (damaged / file).unlink()
    assert Path(file).name in fails_in_one_line(str(damaged))


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_file_cut_short_fails_in_one_line(damaged: Path, file: str) -> None:
    content = (damaged / file).read_bytes()
    (damaged / file).write_bytes(content[: len(content) // 2])
    fails_in_one_line(str(damaged))


def change(path: Path, edit: Callable[[dict], None]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    edit(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def test_weights_of_another_shape_fail_in_one_line(damaged: Path) -> None:
    change(damaged / "unet" / "config.json", lambda config: config.update(cross_attention_dim=32))
    fails_in_one_line(str(damaged))
    change(damaged / "unet" / "config.json", lambda config: config.update(cross_attention_dim=16))
    load_pipeline(str(damaged))
    change(damaged / "text_encoder" / "config.json", lambda config: config.update(hidden_size=32))
    fails_in_one_line(str(damaged))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert f"no model_index.json in {tmp_path}" in fails_in_one_line(str(tmp_path))


def test_a_name_that_is_nothing_fails_in_one_line(tmp_path: Path) -> None:
    fails_in_one_line(str(tmp_path / "nowhere"))


def test_the_embedded_model_is_a_folder_of_the_package() -> None:
    assert Path(model_path("emoji")).parts[-3:] == ("diffusion", "emoji", "weights")
    assert model_path("someone/some-model") == "someone/some-model"
    assert set(EMBEDDED) == {"emoji"}


def test_a_hub_id_loads_as_a_folder_does(tiny_model: Path, tmp_path: Path) -> None:
    """The hub's own cache layout, filled by hand, stands for a download; a process of its own."""
    revision = "0" * 40
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    program = (
        "import sys, torch\n"
        "from diffusion.pipelines import load_pipeline\n"
        "hub, folder = (load_pipeline(name).unet.state_dict() for name in sys.argv[1:])\n"
        "assert hub.keys() == folder.keys()\n"
        "assert all(torch.equal(hub[name], folder[name]) for name in hub)\n"
        "print('same')\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "someone/tiny", str(tiny_model)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "same", done.stderr


def test_a_noiseless_scheduler_is_refused_at_the_first_rollout(damaged: Path) -> None:
    from diffusion.randomness import generator
    from diffusion.rollout import rollout

    path = damaged / "scheduler" / "scheduler_config.json"
    change(path, lambda config: config.update(set_alpha_to_one=True))
    policy = load_policy(str(damaged), seed=0, ledger=Ledger(), sampling_steps=2)
    with pytest.raises(ValueError, match="set_alpha_to_one"):
        rollout(policy, ["a fox"], [generator(0)])


def test_an_unsupported_scheduler_names_its_setting(damaged: Path) -> None:
    path = damaged / "scheduler" / "scheduler_config.json"
    change(path, lambda config: config.update(prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="prediction_type"):
        load_policy(str(damaged), seed=0, ledger=Ledger())


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_the_spacing_comes_from_the_folder(damaged: Path, spacing: str) -> None:
    path = damaged / "scheduler" / "scheduler_config.json"
    change(path, lambda config: config.update(timestep_spacing=spacing))
    policy = load_policy(str(damaged), seed=0, ledger=Ledger(), sampling_steps=4)
    first = {"leading": [751, 501, 251, 1], "trailing": [999, 749, 499, 249]}
    assert policy.schedule.timesteps.tolist() == first[spacing]


def test_everything_loads_in_the_asked_precision(tiny_model: Path) -> None:
    policy = load_policy(str(tiny_model), seed=0, ledger=Ledger(), dtype=torch.bfloat16)
    assert policy.dtype == policy.vae.dtype == policy.text_encoder.dtype == torch.bfloat16
    assert policy.latent_shape == (4, 8, 8)
    assert not any(p.requires_grad for p in policy.vae.parameters())
    assert not any(p.requires_grad for p in policy.text_encoder.parameters())
    assert not policy.unet.training
