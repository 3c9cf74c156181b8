"""Suites: what is read, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmark import prompt_sets, suite
from benchmark.errors import UsageError
from benchmark.suite import Suite, parse_seeds
from diffusion.emoji.catalogue import COMMON_ANIMALS
from rewards.background import Background

MINIMAL = """
name: minimal
prompts:
  train: [a cat]
  test: [a dog]
rewards: [colourfulness]
methods: [ddpo]
"""


def read(path: Path, text: str) -> Suite:
    path.write_text(text, encoding="utf-8")
    return suite.check(*suite.read(str(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "suite.yaml"


def subject(prompt: str) -> str:
    return prompt.split(",")[0].split()[1]


def test_defaults_are_filled_in(file: Path) -> None:
    checked = read(file, MINIMAL)
    assert checked.methods == {"ddpo": {}}
    assert (checked.model.name, checked.model.eta, checked.budget.images) == ("emoji", 1.0, 256)


@pytest.mark.parametrize("name", ["emoji", "emoji-quick", "emoji-validation"])
def test_suites_of_the_package(name: str) -> None:
    checked = suite.check(*suite.read(name))
    assert checked.name == name
    assert len(checked.rewards) >= 2
    assert list(checked.methods) == ["dag", "ddpo"]


def test_prompts_of_the_default_suite() -> None:
    names = ["animals-train", "animals-validation", "animals-held-out"]
    train, validation, held_out = sets = [prompt_sets.read(name) for name in names]
    animals = [{subject(prompt) for prompt in prompts} for prompts in sets]
    assert set.union(*animals) == {*COMMON_ANIMALS, "owl"}
    assert sum(map(len, animals)) == len(set.union(*animals))
    assert [len(validation), len(held_out), len(train)] == [6, 6, 34]
    bare = r"an? \w+"
    assert all(re.fullmatch(bare, prompt) for prompts in sets for prompt in prompts)


@pytest.mark.parametrize("part", ["train", "held-out"])
def test_prompts_with_backgrounds_ask_for_the_same_animals(part: str) -> None:
    with_backgrounds = prompt_sets.read(f"animals-on-backgrounds-{part}")
    bare = [prompt_sets.content(prompt) for prompt in with_backgrounds]
    assert set(bare) == set(prompt_sets.read(f"animals-{part}"))
    Background().check_prompts(with_backgrounds)


def test_e_notation_without_a_dot_is_a_number(file: Path) -> None:
    checked = read(file, MINIMAL.replace("[ddpo]", "{ddpo: {learning_rate: 1e-4}}"))
    assert checked.methods["ddpo"]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", [0, 1, 2]), ("0,3,5", [0, 3, 5]), ("1-2,7", [1, 2, 7]), (4, [4])]
)
def test_seeds(text: str | int, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,", "-1", "1-2-3", "0.5"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rewards:", "reward:"), r"suite\.yaml:6: unknown key 'reward'; did you mean 'rewards'"),
        (("  train:", "  trian:"), r"suite\.yaml:4: unknown key 'prompts.trian'; did you .*train"),
        (("[a dog]", "[A  Cat]"), r"overlap.*'A Cat'"),
        (
            ("  test:", "  evaluation:"),
            r"suite\.yaml:3: prompts: .*is called 'test' now",
        ),
        (("[a dog]", "[a dog]\n  validation: [A Dog, b]"), r"test and validation overlap: 1 .*Dog"),
        (("[a dog]", "[a dog]\n  validation: ['the cat, x']"), r"train and validation .*the cat"),
        (
            ("[ddpo]", "[ddpo]\nevaluation: {checkpoint: best-on-validation}"),
            r"best-on-validation needs prompts\.validation",
        ),
        (("[ddpo]", "[ddpo]\nevaluation: {checkpoint: best}"), r"suite\.yaml:8: .*checkpoint"),
        (("[ddpo]", "[ddpo]\nevaluation: {etas: [1, 1]}"), r"suite\.yaml:8: .*an eta occurs twice"),
        (("[ddpo]", "[ddpo]\nevaluation: {etas: [2]}"), r"suite\.yaml:8: evaluation\.etas"),
        (
            ("[ddpo]", "[ddpo]\nanchors: {rewards: {style: {version: '1', zero: 2, one: 1}}}"),
            r"suite\.yaml:8: .*one has to be above zero",
        ),
        (("[a dog]", "[]"), r"suite\.yaml:5: prompts\.test"),
        (("[a cat]", "[a cat, a cat]"), r"'a cat' occurs twice"),
        (("[a cat]", "animals-trian"), r"unknown prompt set .*did you mean 'animals-train'"),
        (("[a cat]", "none.txt"), r"none\.txt cannot be read"),
        (("[ddpo]", "[ddpo]\nseeds: 2-1"), r"suite\.yaml:8: seeds: .*'2-1' is empty"),
        (("[ddpo]", "[ddpo]\nmodel: {eta: 2}"), r"suite\.yaml:8: model\.eta: .*got 2"),
        (("name: minimal", ""), r"name is missing"),
        (("minimal", "../x"), r"suite\.yaml:2: name"),
        (("rewards:", "rewards: [jpeg\nmore:"), r"suite\.yaml:\d+: malformed YAML"),
        (("methods:", "name: twice\nmethods:"), r"suite\.yaml:7: .*'name' occurs twice"),
        ((MINIMAL, "- a\n- list\n"), r"a suite is a mapping of keys to values, not a list"),
        ((MINIMAL, "a: !!python/object:os.system {}\n"), r"malformed YAML"),
    ],
)
def test_what_is_refused(file: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read(file, MINIMAL.replace(*change))
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


def test_same_subject_and_style_on_another_background_overlaps() -> None:
    train = ["a cat, noto style, on a red background"]
    assert prompt_sets.shared(train, ["a cat, noto style, on a blue background"])
    assert prompt_sets.shared(train, ["A cat, noto style"])
    assert not prompt_sets.shared(train, ["a cat, fluent style, on a red background"])


def test_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'emoji-quick'"):
        suite.find("emoji-qick")
    with pytest.raises(UsageError, match="no such file"):
        suite.find("missing.yaml")
