"""Finding rewards by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import rewards
from rewards import Reward, UnknownReward

EXPECTED = {
    "aesthetic_v2",
    "background",
    "blip_vqa",
    "clip_l14",
    "clip_score",
    "clipscore_b32",
    "colourfulness",
    "conse",
    "hpsv2.0",
    "hpsv2.1",
    "image_reward_v1",
    "jpeg_compressibility",
    "jpeg_incompressibility",
    "jpeg_proxy",
    "pickscore_v1",
    "point_bump",
    "point_linear",
    "point_modes",
    "style",
    "vlm_bertscore",
}

NEW_REWARD = '''
from rewards import register
from rewards.interface import Reward


@register
class Brightness(Reward):
    """Mean of all channels."""

    name = "brightness"
    version = "1"
    unit = "share of white"
    range = (0.0, 1.0)
    differentiable = True
    source = "a test"

    def score(self, images, prompts):
        return images.mean((1, 2, 3))
'''


def test_all_rewards_are_found():
    assert set(rewards.registry()) == EXPECTED


def test_names_are_the_declared_ones_and_sorted():
    registry = rewards.registry()
    assert list(registry) == sorted(registry)
    assert all(name == reward.name for name, reward in registry.items())


def test_inheritance_is_one_deep():
    assert all(reward.__bases__ == (Reward,) for reward in rewards.registry().values())


def test_a_new_file_is_a_new_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    (tmp_path / "brightness.py").write_text(NEW_REWARD)
    monkeypatch.setattr(rewards, "_REGISTERED", dict(rewards.registry()))
    monkeypatch.setattr(rewards, "__path__", [*rewards.__path__, str(tmp_path)])
    assert set(rewards.registry()) == EXPECTED | {"brightness"}
    assert rewards.load("brightness")(torch.ones(2, 3, 8, 8), ["", ""]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("clipscore", "clip_score"), ("jpeg-proxy", "jpeg_proxy"), ("colorfulness", "colourfulness")],
)
def test_unknown_name_points_to_the_nearest(wrong: str, nearest: str):
    with pytest.raises(UnknownReward) as caught:
        rewards.load(wrong)
    assert isinstance(caught.value, ValueError)
    assert caught.value.nearest == nearest
    message = str(caught.value)
    assert repr(wrong) in message and "\n" not in message
    assert all(name in message for name in EXPECTED)


def test_a_name_is_given_once():
    class Impostor(rewards.registry()["colourfulness"]):  # type: ignore[misc]
        pass

    with pytest.raises(ValueError, match="'colourfulness' is taken by rewards.colourfulness"):
        rewards.register(Impostor)


def test_declarations_are_compulsory():
    class Silent(Reward):
        name = "silent"
        version = "1"
        range = (0.0, 1.0)
        differentiable = False

    with pytest.raises(TypeError, match="Silent does not declare unit, source"):
        rewards.register(Silent)
    assert "silent" not in rewards.registry()
