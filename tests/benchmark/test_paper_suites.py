"""The suites of the papers carry the released settings, word by word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import methods
from benchmark import overrides, prompt_sets, resolution, suite
from benchmark.errors import UsageError
from diffusion.ledger import Ledger
from methods.optimizer import Optimizer
from tests.benchmark.test_prompt_sets import write_drawbench

NAMES = [n for n in suite.names() if n.startswith("sd15-") and n != "sd15-random"]

SD14, SD15 = "CompVis/stable-diffusion-v1-4", "stable-diffusion-v1-5/stable-diffusion-v1-5"
SAMPLER = {"sampling_steps": 50, "lora_rank": 4, "lora_alpha": 4, "trainable": "lora"}
AT_ETA_1 = {**SAMPLER, "guidance_scale": 5, "eta": 1}
POLICY_GRADIENT = {
    "images_per_prompt": 1,
    "prompt_draw": "independent",
    "initial_noise": "independent",
    "learning_rate": 3e-4,
    "learning_rate_decay": "constant",
    "weight_decay": 1e-4,
    "gradient_clip": 1.0,
    "timestep_fraction": 1.0,
    "timestep_draw": "random",
    "step_weight": "uniform",
    "reduction": "mean",
    "guidance_in_training": True,
}
DDPO = {
    **POLICY_GRADIENT,
    "prompts_per_round": 256,
    "micro_batch_size": 4,
    "inner_epochs": 1,
    "ratio_clip": 1e-4,
    "advantage": "per_prompt_tracker",
    "advantage_clip": 5.0,
    "tracker_min_count": 16,
}
ALIGNPROP = {
    "images_per_prompt": 1,
    "prompt_draw": "independent",
    "learning_rate": 1e-3,
    "learning_rate_decay": "constant",
    "loss": "target",
    "loss_target": 10,
    "loss_coefficient": 0.01,
    "threshold": "gaussian",
    "last_steps": 2,  # of no effect: truncation is random in both
}
ANIMALS = ("simple-animals", "simple-animals-held-out")
# What the releases state, and all of it: model, images in all, prompts, reward, options.
PUBLISHED: dict[str, tuple[dict[str, Any], int, tuple[str, str], str, dict[str, Any]]] = {
    "sd15-dag": (
        {**AT_ETA_1, "name": SD15, "dtype": "bfloat16"},
        51_200,
        ("drawbench:released-train", "drawbench:released-held-out"),
        "image_reward_v1",
        {
            **POLICY_GRADIENT,
            "prompts_per_round": 512,
            "updates_per_round": 2,
            "micro_batch_size": 8,
            "flow_learning_rate": 3e-4,
            "flow_gradient_clip": 1.0,
            "beta": 100,
            "beta_unit": "mean",
            "beta_anneal": "linear",
            "beta_anneal_share": 0.5,
            "beta_anneal_from": 0,
            "regulariser_weight": 1.0,
            "clean_prediction": "conditional",
            "fresh_rewards": True,
            "detach_next_flow": False,
            "subtrajectory_length": 1,
            "flow_levels": "learned",
            "centre_states": False,
            "reward_unit": "raw",
            "weight_average": 0.0,
        },
    ),
    "sd15-ddpo": (
        {**AT_ETA_1, "name": SD14, "dtype": "float16"},
        25_600,
        ("imagenet-animals", ""),
        "jpeg_compressibility",
        {**DDPO, "updates_per_round": 4, "tracker_buffer_size": 16},
    ),
    "sd15-ddpo-aesthetic": (
        {**AT_ETA_1, "name": SD14, "dtype": "float16"},
        51_200,
        ANIMALS,
        "aesthetic_v2",
        {**DDPO, "updates_per_round": 2, "tracker_buffer_size": 32},
    ),
    "sd15-alignprop": (
        {
            **SAMPLER,
            "name": SD15,
            "guidance_scale": 7.5,
            "eta": 0,
            "dtype": "float16",
            "gradient_checkpointing": True,
        },
        1_792,
        ANIMALS,
        "aesthetic_v2",
        {
            **ALIGNPROP,
            "prompts_per_round": 256,
            "updates_per_round": 2,
            "micro_batch_size": 4,
            "weight_decay": 0.1,
            "gradient_clip": 5.0,
            "truncation": "random-per-step",
        },
    ),
    "sd15-alignprop-2024-10": (
        {**AT_ETA_1, "name": SD15, "dtype": "float16", "gradient_checkpointing": True},
        2_560,
        ANIMALS,
        "aesthetic_v2",
        {
            **ALIGNPROP,
            "prompts_per_round": 128,
            "updates_per_round": 1,
            "micro_batch_size": 8,
            "weight_decay": 1e-4,
            "gradient_clip": 1.0,
            "truncation": "random-per-trajectory",
        },
    ),
}
METHODS = {name: name.split("-")[1] for name in PUBLISHED}


@pytest.fixture(autouse=True)
def prompts_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    write_drawbench(tmp_path / "prompts" / "drawbench.csv")


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_is_what_was_released(name: str) -> None:
    model, images, (train, test), reward, options = PUBLISHED[name]
    values, origins = suite.read(name)
    checked = suite.check(*suite.read(name))
    assert checked.model.model_dump().items() >= model.items()
    assert checked.budget.images == images and checked.rewards == (reward,)
    assert values["prompts"]["train"] == train
    assert values["prompts"]["test"] == test or not test
    (given,) = checked.methods.items()
    assert given[0] == METHODS[name]
    kind = methods.get(given[0])
    filled = resolution._with_released(kind, given[1], origins)
    assert filled.items() >= kind.RELEASED[given[1]["released"]].items()
    assert kind.Config.model_validate(filled).model_dump() == options


def test_released_rounds_and_updates() -> None:
    """Epochs of the releases, and their gradient updates in all."""
    found = {
        name: (images // options["prompts_per_round"], options["updates_per_round"])
        for name, (_, images, _, _, options) in PUBLISHED.items()
    }
    assert found == {
        "sd15-dag": (100, 2),
        "sd15-ddpo": (100, 4),
        "sd15-ddpo-aesthetic": (200, 2),
        "sd15-alignprop": (7, 2),
        "sd15-alignprop-2024-10": (20, 1),
    }


def test_the_optimizer_is_the_releases() -> None:
    """The same AdamW in all of them."""
    weights = [torch.nn.Parameter(torch.zeros(2))]
    settings = Optimizer(Ledger(), weights, 3e-4, 1e-4, 1.0).adamw.defaults
    assert (settings["betas"], settings["eps"]) == ((0.9, 0.999), 1e-8)
    assert (settings["lr"], settings["weight_decay"]) == (3e-4, 1e-4)


def test_there_is_a_suite_of_each_paper() -> None:
    assert set(NAMES) == set(PUBLISHED)
    assert set(METHODS.values()) == {"dag", "ddpo", "alignprop"}


def test_test_animals_are_in_no_name_of_imagenet() -> None:
    prompts = suite.check(*suite.read("sd15-ddpo")).prompts
    words = set(re.findall(r"\w+", " ".join(prompts.train).lower()))
    expected = [name for name in prompt_sets.read("simple-animals") if name not in words]
    assert list(prompts.test) == expected


def test_a_suite_resolves_without_weights() -> None:
    values, origins = suite.read("sd15-ddpo")
    overrides.apply(values, origins, [overrides.parse("ddpo.learning_rate=1e-4")])
    resolved = resolution.resolve(suite.check(values, origins), origins)
    options = resolved.suite.methods["ddpo"]
    assert "released" not in options
    assert (options["learning_rate"], options["ratio_clip"]) == (1e-4, 1e-4)


def write(folder: Path, **changes: Any) -> str:
    values = {
        "name": "x",
        "prompts": {"train": ["a cat"], "test": ["a dog"]},
        "rewards": ["colourfulness"],
        "methods": {"ddpo": {}},
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(values | changes), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": {"ddpo": {"released": "ddpo-pytorch:aestetic"}}},
            r"methods\.ddpo\.released: no released settings .* 'ddpo-pytorch:aesthetic'",
        ),
        ({"methods": {"ddpo": {"released": 3}}}, r"no released settings 3"),
        (
            {"model": {"dtype": "float16", "trainable": "full"}},
            r"a whole UNet does not train in float16",
        ),
        ({"model": {"name": "sd15-randon"}}, r"did you mean 'sd15-random'"),
        ({"model": {"attention": "flash"}}, r"model\.attention"),
        (
            {
                "model": {
                    "name": "mixture",
                    "guidance_scale": 1,
                    "trainable": "full",
                    "compile": True,
                },
                "evaluation": {"encoders": ["direction"]},
            },
            r"model\.compile: model 'mixture' takes False only",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    values, origins = suite.read(write(tmp_path, **changes))
    with pytest.raises(UsageError, match=message) as error:
        resolution.resolve(suite.check(values, origins), origins)
    assert "\n" not in str(error.value)


def test_economies_left_alone_are_not_written() -> None:
    plain = suite.ModelSettings()
    assert not suite.ECONOMIES.keys() & plain.model_dump(mode="json").keys()
    used = suite.ModelSettings(vae_slicing=True).model_dump(mode="json")
    assert used.keys() & suite.ECONOMIES.keys() == {"vae_slicing"}
    assert suite.ModelSettings.model_validate(used).vae_slicing
