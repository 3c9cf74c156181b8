"""What can be said of TRL's trainers without them: what they cannot run, and what they need."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import methods
from diffusion.kernel import make_schedule
from methods import processes
from methods.trl_adapter import GridScheduler
from tests.methods.conftest import make_task
from tests.methods.point import STABLE_DIFFUSION, PointPolicy


def test_updates_are_equal() -> None:
    for name in ("trl-ddpo", "trl-alignprop"):
        with pytest.raises(ValidationError, match=r"a round of \d+ images cannot be split in 5"):
            methods.get(name).Config(updates_per_round=5)


@pytest.mark.parametrize(
    ("ours", "differing"),
    # TRL's updates share one pass.
    [("ddpo", {"advantage", "updates_per_round"}), ("alignprop", set())],
)
def test_defaults_are_those_of_our_own(ours: str, differing: set[str]) -> None:
    own = methods.get(ours).Config().model_dump()
    theirs = methods.get(f"trl-{ours}").Config().model_dump()
    assert theirs.keys() <= own.keys()
    assert {option for option, value in theirs.items() if own[option] != value} == differing


@pytest.mark.parametrize("name", ["trl-ddpo", "trl-alignprop"])
def test_several_processes_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = methods.get(name)
    monkeypatch.setattr(kind, "unavailable", classmethod(lambda _: ""))
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match=f"{name} trains in one process, and the group has 2"):
        kind(make_task(PointPolicy()), kind.Config())


@pytest.mark.parametrize(
    ("settings", "steps", "named"),
    [
        ({"timestep_spacing": "trailing"}, 7, "timestep_spacing 'leading'"),
        ({"set_alpha_to_one": True}, 50, "set_alpha_to_one must be false"),
    ],
)
def test_schedules_that_trl_would_take_for_others(
    settings: dict[str, Any], steps: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        GridScheduler(make_schedule(STABLE_DIFFUSION | settings, steps))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 50, 333])
def test_schedules_that_trl_takes_as_they_are(steps: int) -> None:
    schedule = make_schedule(STABLE_DIFFUSION, steps)
    scheduler = GridScheduler(schedule)
    assert torch.equal(scheduler.timesteps, schedule.timesteps)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), schedule.alphas_cumprod)


def test_without_trl_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    for version, said in ((missing, "not installed"), (lambda _: "0.24.0", "0.24.0 is installed")):
        monkeypatch.setattr(importlib.metadata, "version", version)
        for name in ("trl-ddpo", "trl-alignprop"):
            kind = methods.get(name)
            assert said in kind.unavailable()
            with pytest.raises(ValueError, match=r": pip install trl==0.23.1$"):
                kind(make_task(PointPolicy()), kind.Config())
