"""Models by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmark.errors import UsageError
from benchmark.models import NAMED, find_model
from diffusion.pipelines import EMBEDDED, model_path


def test_names_are_those_that_cells_load() -> None:
    assert set(NAMED) == set(EMBEDDED)
    assert {name: str(folder) for name, folder in NAMED.items()} == {
        name: model_path(name) for name in NAMED
    }


def test_a_folder_and_a_hub_id(tiny_model: Path) -> None:
    assert find_model(str(tiny_model)) == tiny_model
    assert find_model("owner/name") is None


@pytest.mark.parametrize(
    "file", ["vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_a_missing_file_is_named(tiny_model: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / file).unlink()
    expected = "vae/*.safetensors" if file.startswith("vae") else file
    with pytest.raises(UsageError) as error:
        find_model(str(folder))
    assert str(folder / expected) in str(error.value)


@pytest.mark.parametrize("name", ["emoij", "./nowhere", "/absolute/nowhere", "a/b/c"])
def test_what_is_no_model(name: str) -> None:
    with pytest.raises(UsageError, match="unknown model"):
        find_model(name)
