"""Rewards that a suite declares, from YAML to scored images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rewards
from benchmark import composites, resolution, suite
from benchmark.composites import CompositeSettings
from results import store
from tests.benchmark.conftest import Command, one_line_error

SUM = {"sum": {"colourfulness": 2.0, "jpeg_proxy": -0.5}}
PRODUCT = {"product": ["colourfulness", "style"]}


def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def score(name: str) -> torch.Tensor:
    return rewards.load(name)(images(), ["a fox"] * 3)


def with_composites(tiny_suite: Path, **changes: Any) -> Path:
    values = yaml.safe_load(tiny_suite.read_text())
    values["composites"] = {"both": SUM, "gated": PRODUCT}
    tiny_suite.write_text(yaml.safe_dump(values | {"rewards": ["both", "gated"]} | changes))
    return tiny_suite


def test_sum_and_product() -> None:
    both, gated = (composites.load("it", {"it": made}) for made in (SUM, PRODUCT))
    expected = 2 * score("colourfulness") - 0.5 * score("jpeg_proxy")
    torch.testing.assert_close(both(images(), ["a fox"] * 3), expected)
    expected = score("colourfulness") * score("style")
    torch.testing.assert_close(gated(images(), ["a fox"] * 3), expected)


def test_what_follows_from_the_parts() -> None:
    both, gated = (composites.load("it", {"it": made}) for made in (SUM, PRODUCT))
    proxy, colour = rewards.load("jpeg_proxy"), rewards.load("colourfulness")
    assert proxy.range[0] is None and proxy.range[1] is not None and colour.range[1] is not None
    assert both.range == (pytest.approx(-0.5 * proxy.range[1]), None)
    assert gated.range == (0.0, colour.range[1])
    assert both.differentiable and not both.needs_prompt and both.scores == "image"
    assert both.version == f"2 [colourfulness {colour.version}] + -0.5 [jpeg_proxy {proxy.version}]"
    size = composites.load("it", {"it": {"sum": {"jpeg_compressibility": 1, "clip_score": 1}}})
    assert not size.differentiable and size.needs_prompt
    background = composites.load("it", {"it": {"product": ["background", "style"]}})
    with pytest.raises(rewards.interface.RewardInputError, match="'it': .*asks for no background"):
        background.check_prompts(["a fox"])


def test_gradients_are_the_parts() -> None:
    both = composites.load("it", {"it": SUM})
    slopes = []
    for reward in (both, rewards.load("colourfulness"), rewards.load("jpeg_proxy")):
        x = images().requires_grad_()
        (slope,) = torch.autograd.grad(reward.differentiable_score(x, ["a fox"] * 3).sum(), x)
        slopes.append(slope)
    torch.testing.assert_close(slopes[0], 2 * slopes[1] - 0.5 * slopes[2])


def test_the_protocol_tells_composites_apart(tiny_suite: Path) -> None:
    hashes = set()
    for weight in (1.0, 2.0):
        made = {"both": {"sum": {"colourfulness": weight, "style": 1.0}}}
        path = with_composites(tiny_suite, composites=made, rewards=["both"])
        values, origins = suite.read(str(path))
        from benchmark.run import protocol_of

        hashes.add(protocol_of(resolution.resolve(suite.check(values, origins), origins)).hash)
    assert len(hashes) == 2


def test_a_run_trains_on_them_and_is_scored_by_them(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> None:
    path = with_composites(tiny_suite)
    done = benchmark_command(
        "run", "--suite", path, "--rewards", "both", "--out", tmp_path / "run", "--workers", "1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = store.read_run(tmp_path / "run")
    cell = run.cells["ddpo--both--s0"]
    assert run.record.rewards["both"].version.startswith("2 [colourfulness")
    assert cell.config and cell.config.composites["both"]["sum"] == SUM["sum"]
    scored = cell.picked.rewards
    assert "gated" not in scored
    for prompt in range(2):
        parts = zip(scored["colourfulness"][prompt], scored["jpeg_proxy"][prompt], strict=True)
        assert scored["both"][prompt] == pytest.approx(
            [2 * a - 0.5 * b for a, b in parts], abs=1e-4
        )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"a": {"sum": {"colourful": 1}}}, "unknown reward 'colourful'; did you mean"),
        ({"style": SUM}, "there is a reward of the name 'style'"),
        ({"a": {}}, "composites.a: either a sum, such as"),
        ({"a": {**SUM, **PRODUCT}}, "composites.a: either a sum, such as"),
        ({"a": {"sum": {"style": 0}}}, "a weight of 0 leaves its reward out"),
        ({"a": {"sum": {"style": float("inf")}}}, "the weight of style is not finite"),
        ({"a": {"product": ["style", "style"]}}, "a reward occurs twice in the product"),
        ({"a b": SUM}, "composites.a b"),
        (
            {"a": {"sum": {"style": 1, "point_bump": 1}}},
            "is made of rewards of images and of points",
        ),
        ({"a": {"sum": {"hpsv2.1": 1}}}, "`python -m benchmark fetch hpsv2.1` fetches them"),
    ],
)
def test_bad_ones_are_one_line(
    benchmark_command: Command, tiny_suite: Path, made: dict[str, Any], message: str
) -> None:
    path = with_composites(tiny_suite, composites=made, rewards=[next(iter(made))])
    error = one_line_error(benchmark_command("run", "--suite", path, "--dry-run"), 4)
    assert message in error


def test_settings_are_of_one_kind() -> None:
    assert CompositeSettings.model_validate(SUM).parts == ("colourfulness", "jpeg_proxy")
    assert CompositeSettings.model_validate(PRODUCT).parts == ("colourfulness", "style")
