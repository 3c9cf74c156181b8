"""Finding methods by name, and what their options promise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import methods
from methods import UnknownMethod
from methods.interface import REGISTERED, Method, register
from tests.methods.conftest import make_method, make_task
from tests.methods.point import PointPolicy

ALL = methods.registry()
RELEASED = [(name, release) for name, kind in ALL.items() for release in kind.RELEASED]


def test_all_methods_are_found() -> None:
    own = ["alignprop", "base", "best-of-n", "dag", "dag-kl", "ddpo", "ddpo-sf"]
    assert list(ALL) == [*own, "trl-alignprop", "trl-ddpo"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownMethod, match="unknown method 'dppo': did you mean 'ddpo'"):
        methods.get("dppo")


def test_a_new_file_is_a_new_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeping.py").write_text(
        "from methods.interface import Method, MethodConfig, register\n"
        "@register\n"
        "class Sleeping(Method):\n"
        "    name, title, paper, Config, trains = 'sleeping', 'Sleeping', '', MethodConfig, False\n"
    )
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    try:
        assert methods.get("sleeping").title == "Sleeping"
    finally:
        REGISTERED.pop("sleeping", None)
        sys.modules.pop("methods.sleeping", None)


def test_the_method_of_the_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    code = guide.partition("## A new method")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "random_search.py").write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    try:
        method = make_method("random-search", make_task(PointPolicy(), images=48))
        metrics = [method.step() for _ in range(method.rounds)]
    finally:
        REGISTERED.pop("random-search", None)
        sys.modules.pop("methods.random_search", None)
    assert metrics[-1]["loss"] < metrics[0]["loss"] < 0


def test_a_name_is_given_once() -> None:
    other = type("Other", (Method,), {"name": "ddpo", "__module__": "elsewhere"})
    with pytest.raises(ValueError, match="two methods are called 'ddpo'"):
        register(other)


@pytest.mark.parametrize("name", ALL)
def test_every_option_is_documented_and_checked(name: str) -> None:
    config = ALL[name].Config
    for option, field in config.model_fields.items():
        assert field.description and len(field.description) > 20, option
        assert not field.is_required(), option
    with pytest.raises(ValidationError, match="learning_rte"):
        config.model_validate({"learning_rte": 1.0})


@pytest.mark.parametrize(("name", "release"), RELEASED)
def test_released_settings_are_options(name: str, release: str) -> None:
    settings = ALL[name].RELEASED[release]
    config = ALL[name].Config.model_validate(settings)
    assert config.model_dump().items() >= settings.items()


@pytest.mark.parametrize("name", ["ddpo", "ddpo-sf", "dag", "dag-kl", "trl-ddpo"])
def test_densities_need_a_stochastic_sampler(name: str) -> None:
    with pytest.raises(ValueError, match="needs a stochastic sampler: eta is 0"):
        make_method(name, make_task(PointPolicy(eta=0.0)))


@pytest.mark.parametrize("name", ["alignprop", "trl-alignprop"])
def test_alignprop_needs_a_reward_gradient(name: str) -> None:
    with pytest.raises(ValueError, match="needs a reward with a gradient"):
        make_method(name, make_task(PointPolicy(), reward_gradient=None))


def test_controls_do_not_train() -> None:
    base = make_method("base", make_task(PointPolicy()))
    assert (base.rounds, base.candidates, base.trains) == (0, 1, False)
    with pytest.raises(RuntimeError, match="does not train"):
        base.step()


@pytest.mark.parametrize(("images", "evaluation", "n"), [(512, 80, 6), (10, 80, 1), (80, 80, 1)])
def test_best_of_n_spreads_the_budget(images: int, evaluation: int, n: int) -> None:
    task = make_task(PointPolicy(), images=images, evaluation_images=evaluation)
    assert make_method("best-of-n", task).candidates == n
