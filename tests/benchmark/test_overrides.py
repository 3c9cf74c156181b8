"""``--set``, ``--methods``, ``--rewards``, ``--seeds``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark import overrides, suite
from benchmark.errors import UsageError
from benchmark.suite import Suite
from benchmark.validation import Origins


def changed(*settings: str, **selected: str) -> Suite:
    values, origins = suite.read("emoji")
    overrides.select(values, origins, **selected)
    overrides.apply(values, origins, [overrides.parse(text) for text in settings])
    return suite.check(values, origins)


def test_fields_of_the_suite() -> None:
    result = changed("budget.images=64", "model.eta=0.5", "prompts.train=[a cat]", "seeds=0-3")
    assert result.budget.images == 64
    assert result.model.eta == 0.5
    assert result.prompts.train == ("a cat",)
    assert result.seeds == (0, 1, 2, 3)
    assert result.prompts.test == suite.check(*suite.read("emoji")).prompts.test


@pytest.mark.parametrize("key", ["ddpo.learning_rate", "methods.ddpo.learning_rate"])
def test_options_of_a_method(key: str) -> None:
    assert changed(f"{key}=1e-4").methods["ddpo"] == {"learning_rate": 1e-4}


def test_options_of_a_control_need_no_asking() -> None:
    assert changed("best-of-n.x=1").methods["best-of-n"] == {"x": 1}


def test_all_options_of_a_method_at_once() -> None:
    assert changed("ddpo={a: 1, b: 2}").methods["ddpo"] == {"a": 1, "b": 2}


def test_the_model_by_its_own_option() -> None:
    values, origins = suite.read("emoji")
    overrides.apply(values, origins, overrides.changes(["model.eta=0.5"], "a/b"))
    assert suite.check(values, origins).model.name == "a/b"
    assert origins.of(("model", "name")) == "--model a/b"
    overrides.apply(values, origins, overrides.changes(["model.name=emoji"], "a/b"))
    assert suite.check(values, origins).model.name == "emoji"


def test_later_wins() -> None:
    assert changed("budget.images=64", "budget.images=65").budget.images == 65


def test_selection_keeps_the_options_of_the_suite() -> None:
    values: dict[str, Any] = {"methods": {"ddpo": {"learning_rate": 0.1}, "dag": {}}}
    overrides.select(values, Origins(Path("x.yaml")), methods="base, ddpo", seeds="3")
    assert values == {"methods": {"base": {}, "ddpo": {"learning_rate": 0.1}}, "seeds": "3"}


def test_rewards_and_seeds() -> None:
    result = changed(rewards="style,background", seeds="0,3,5")
    assert result.rewards == ("style", "background")
    assert result.seeds == (0, 3, 5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("budget", "not of the form KEY=VALUE"),
        (".images=3", "not of the form KEY=VALUE"),
        ("budget.imagse=3", "--set budget.imagse=3: unknown key .*did you mean 'images'"),
        ("budgte.images=3", "unknown key 'budgte'; did you mean 'budget'"),
        ("ddop.learning_rate=3", "unknown key 'ddop'; did you mean 'ddpo'"),
        ("ddpo=3", "--set ddpo=3: methods.ddpo: .*dictionary"),
        ("alignprop.learning_rate=1", "not among the methods of this run"),
        ("name.first=1", "name is a value, not a group of keys"),
        ("budget.images=[", "--set .*malformed YAML"),
        ("budget.images=many", "--set budget.images=many: budget.images: .*integer"),
        ("seeds=1-0", "--set seeds=1-0: seeds: .*empty"),
    ],
)
def test_what_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        changed(setting)
    assert "\n" not in str(error.value)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="empty name"):
        changed(methods="ddpo,,dag")
    with pytest.raises(UsageError, match="--seeds x: seeds"):
        changed(seeds="x")
