"""The hash that says which numbers compare, and the anchors that it covers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import rewards
from benchmark import overrides, run_folder, suite
from benchmark import protocol as protocols
from benchmark.errors import UsageError
from benchmark.models import find_model
from benchmark.protocol import Protocol, digest, model_identity
from benchmark.suite import Suite
from results import store
from tests.results.synthetic import Synthetic, as_version_1

REWARDS = {"colourfulness": "1"}
ENCODERS = {"scorer": "abc"}


def changed(*settings: str) -> Suite:
    values, origins = suite.read("emoji")
    overrides.apply(values, origins, [overrides.parse(text) for text in settings])
    return suite.check(values, origins)


def protocol(*settings: str) -> Protocol:
    return Protocol(changed(*settings), "model", REWARDS, ENCODERS)


def minimal(**fields: Any) -> Suite:
    return Suite.model_validate(
        {
            "name": "fixed",
            "prompts": {"train": ["a cat"], "test": ["a dog"]},
            "rewards": ["colourfulness"],
            "methods": {},
            **fields,
        }
    )


def test_the_hash_is_stable() -> None:
    assert Protocol(minimal(), "model", REWARDS, ENCODERS).hash == "8b27207c489cc847"


def test_the_hash_is_that_of_the_content_as_json() -> None:
    found = protocol()
    assert digest(json.loads(json.dumps(found.content))) == found.hash


@pytest.mark.parametrize(
    "setting",
    [
        "version=99",
        "model.sampling_steps=11",
        "model.guidance_scale=4",
        "model.eta=0.5",
        "model.dtype=bfloat16",
        "evaluation.images_per_prompt=5",
        "evaluation.validation_images_per_prompt=5",
        "evaluation.seed=1",
        "evaluation.times=9",
        "evaluation.etas=[1]",
        "evaluation.etas=[0, 1]",
        "evaluation.checkpoint=last",
        "prompts.train=[a dog]",
        "prompts.validation=[a cow]",
        "prompts.test=[a cow]\nprompts.validation=[a bear]",
    ],
)
def test_what_the_numbers_rest_on_changes_it(setting: str) -> None:
    assert protocol(*setting.split("\n")).hash != protocol().hash


@pytest.mark.parametrize(
    "setting",
    [
        "budget.images=64",
        "seeds=7",
        "methods=[base]",
        "rewards=[colourfulness]",
        "model.lora_rank=2",
        "evaluation.batch_size=2",
        "workers=1",
        "description=another",
    ],
)
def test_what_is_compared_does_not(setting: str) -> None:
    assert protocol(setting).hash == protocol().hash


def test_versions_and_weights_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    same = changed()
    hashes = {
        Protocol(same, "model", REWARDS, ENCODERS).hash,
        Protocol(same, "other", REWARDS, ENCODERS).hash,
        Protocol(same, "model", {"colourfulness": "2"}, ENCODERS).hash,
        Protocol(same, "model", REWARDS, {"scorer": "abd"}).hash,
    }
    monkeypatch.setattr(protocols, "VERSION", protocols.VERSION + 1)
    hashes.add(Protocol(same, "model", REWARDS, ENCODERS).hash)
    assert len(hashes) == 5


def anchored(one: float = 0.5, version: str = "1", **fields: Any) -> Protocol:
    plain = Protocol(minimal(**fields), "model", REWARDS, ENCODERS)
    anchor = {"version": version, "zero": 0.25, "one": one}
    measured = Protocol(minimal(), "model", REWARDS, ENCODERS)
    anchors = {"conditions": digest(measured.conditions), "rewards": {"colourfulness": anchor}}
    return Protocol(minimal(anchors=anchors, **fields), "model", plain.rewards, plain.encoders)


def test_anchors_are_part_of_the_hash() -> None:
    plain = Protocol(minimal(), "model", REWARDS, ENCODERS)
    assert anchored().anchors["colourfulness"].one == 0.5
    assert anchored().anchors_unused() == ""
    assert len({plain.hash, anchored().hash, anchored(one=0.6).hash}) == 3


def test_anchors_of_other_conditions_are_not_used_and_it_says_so() -> None:
    changes: list[dict[str, Any]] = [{"evaluation": {"seed": 1}}, {"model": {"guidance_scale": 5}}]
    for fields in changes:
        other = anchored(**fields)
        assert other.anchors == {}
        assert "other conditions" in other.anchors_unused()
        assert other.hash == Protocol(minimal(**fields), "model", REWARDS, ENCODERS).hash
    assert anchored(budget={"images": 8}, evaluation={"times": 1}).anchors
    newer = anchored(version="0")
    assert newer.anchors == {}
    assert "another version of colourfulness" in newer.anchors_unused()


def without_library(version: str) -> str:
    return re.sub(r"libjpeg\S* [\d.]+", "", version)


@pytest.mark.parametrize("name", ["emoji", "emoji-quick", "mixture"])
def test_anchors_of_the_suites_hold_under_their_own_conditions(name: str) -> None:
    checked = suite.check(*suite.read(name))
    model = model_identity(checked.model.name, find_model(checked.model.name))
    found = Protocol(checked, model, {}, {})
    assert checked.anchors.conditions == digest(found.conditions)
    assert checked.anchors.source
    assert set(checked.anchors.rewards) >= set(checked.rewards)
    for reward, anchor in checked.anchors.rewards.items():
        # Another machine's libjpeg is another version of the reward.
        assert without_library(anchor.version) == without_library(rewards.load(reward).version)


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


def test_nothing_is_added_to_a_folder_of_version_1(tmp_path: Path) -> None:
    folder = as_version_1(Synthetic(tmp_path).write())
    before = store.read_run(folder).record
    now = before.model_copy(update={"protocol": protocol().hash})
    with pytest.raises(UsageError, match=r"holds a run with other settings \(protocol\)"):
        run_folder.check_usable(folder, now)
    suite_config = before.suite_config | {"prompts": {"test": ["a lion"]}}
    with pytest.raises(UsageError, match=r"other settings \(prompts\.?\w*\)"):
        run_folder.check_usable(folder, now.model_copy(update={"suite_config": suite_config}))
