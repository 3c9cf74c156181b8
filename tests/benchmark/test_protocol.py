"""The hash that says which numbers compare."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmark import overrides, suite
from benchmark.protocol import model_identity, protocol_hash
from benchmark.suite import Suite

REWARDS = {"colourfulness": "1"}
ENCODERS = {"scorer": "abc"}


def changed(*settings: str) -> Suite:
    values, origins = suite.read("emoji")
    overrides.apply(values, origins, [overrides.parse(text) for text in settings])
    return suite.check(values, origins)


def hash_of(*settings: str) -> str:
    return protocol_hash(changed(*settings), "model", REWARDS, ENCODERS)


def test_the_hash_is_stable() -> None:
    fixed = Suite.model_validate(
        {
            "name": "fixed",
            "prompts": {"train": ["a cat"], "evaluation": ["a dog"]},
            "rewards": ["colourfulness"],
            "methods": {},
        }
    )
    assert protocol_hash(fixed, "model", REWARDS, ENCODERS) == "0a64dcdf2b09cecc"


@pytest.mark.parametrize(
    "setting",
    [
        "model.sampling_steps=11",
        "model.guidance_scale=4",
        "model.eta=0.5",
        "model.dtype=bfloat16",
        "evaluation.images_per_prompt=5",
        "evaluation.seed=1",
        "prompts.evaluation=animals-validation",
    ],
)
def test_what_evaluation_depends_on_changes_it(setting: str) -> None:
    assert hash_of(setting) != hash_of()


@pytest.mark.parametrize(
    "setting",
    [
        "budget.images=64",
        "seeds=7",
        "methods=[base]",
        "model.lora_rank=2",
        "evaluation.batch_size=2",
        "evaluation.times=9",
        "workers=1",
        "prompts.train=[a cow]",
    ],
)
def test_what_is_compared_does_not(setting: str) -> None:
    assert hash_of(setting) == hash_of()


def test_versions_and_weights_change_it() -> None:
    same = changed()
    hashes = {
        protocol_hash(same, "model", REWARDS, ENCODERS),
        protocol_hash(same, "other", REWARDS, ENCODERS),
        protocol_hash(same, "model", {"colourfulness": "2"}, ENCODERS),
        protocol_hash(same, "model", REWARDS, {"scorer": "abd"}),
    }
    assert len(hashes) == 4


def test_a_model_is_its_content_and_not_its_path(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, copy)
    assert model_identity(str(copy), copy) == model_identity(str(tiny_model), tiny_model)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_identity(str(copy), copy) != model_identity(str(tiny_model), tiny_model)
    assert model_identity("owner/name", None) == "owner/name"
