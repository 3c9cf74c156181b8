"""The shared training loop: what a kill costs, and what it leaves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion.emoji import loop
from diffusion.emoji.loop import Loss, Schedule, train

STEPS = 12


class Killed(BaseException):
    """Not an ``Exception``: nothing between the loss and the test may handle it."""


def modules() -> nn.ModuleDict:
    """A network with weights, a buffer that training changes, and an integer one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.ModuleDict({"net": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))})


def noisy_loss(network: nn.ModuleDict, killed_at: int | None = None) -> Loss:
    """Regression on data drawn anew each step; raises in the call with number ``killed_at``."""
    calls = itertools.count()

    def loss(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if next(calls) == killed_at:
            raise Killed
        x = torch.randn(8, 3, generator=generator)
        error = (network["net"](x) - x.sum(1, keepdim=True)).square().mean()
        return error, {"error": error.detach()}

    return loss


def run(folder: Path, schedule: Schedule, killed_at: int | None = None) -> nn.ModuleDict:
    """Train from a fresh start of the process, as far as it gets."""
    network = modules()
    return train(network, noisy_loss(network, killed_at), schedule, folder, seed=3)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def every_step() -> Schedule:
    return Schedule(STEPS, 1e-2, warmup=3, checkpoint_seconds=0)


@pytest.mark.parametrize("killed_at", [0, 1, 5, STEPS - 1])
def test_a_killed_run_ends_as_a_straight_one(tmp_path: Path, killed_at: int) -> None:
    straight = run(tmp_path / "straight", every_step())
    with pytest.raises(Killed):
        run(tmp_path / "killed", every_step(), killed_at)
    resumed = run(tmp_path / "killed", every_step())
    assert same(resumed, straight)
    assert not same(straight, modules())


def test_several_kills_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances a second a look, so that only some steps are stored."""
    straight = run(tmp_path / "straight", every_step())
    clock: Callable[[], float] = itertools.count(0.0).__next__
    monkeypatch.setattr(loop.time, "monotonic", clock)
    seldom = Schedule(STEPS, 1e-2, warmup=3, checkpoint_seconds=10)
    started = []
    for killed_at in (2, 6, 7):
        with pytest.raises(Killed):
            run(tmp_path / "killed", seldom, killed_at)
        path = tmp_path / "killed" / "checkpoint.pt"
        started.append(torch.load(path, weights_only=True)["step"] if path.exists() else 0)
    assert 0 in started and 0 < started[-1] < STEPS
    assert same(run(tmp_path / "killed", seldom), straight)


def test_a_kill_while_writing_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(tmp_path / "straight", every_step())
    save, calls = torch.save, itertools.count()

    def save_half(state: object, path: Path) -> None:
        save(state, path)
        if next(calls) == 6:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.torch, "save", save_half)
        run(tmp_path / "killed", every_step())
    last = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)
    assert last["step"] == 6
    assert same(run(tmp_path / "killed", every_step()), straight)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path, every_step())
    again = run(tmp_path, every_step(), killed_at=0)
    assert same(first, again)


def test_the_seed_decides_and_the_global_generator_does_not(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        one = run(tmp_path / "one", every_step())
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert same(run(tmp_path / "other", every_step()), one)
    network = modules()
    other = train(network, noisy_loss(network), every_step(), tmp_path / "seed", seed=4)
    assert not same(other, one)


def test_the_result_is_the_average_of_the_steps(tmp_path: Path) -> None:
    """Written out for two steps: decay is min(ema_decay, step / (step + 10))."""
    network = modules()
    weight = network.get_parameter("net.0.weight")
    values: list[torch.Tensor] = []
    inner = noisy_loss(network)

    def loss(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        values.append(weight.detach().clone())
        return inner(generator)

    schedule = Schedule(2, 1e-2, warmup=1, checkpoint_seconds=1e9)
    train(network, loss, schedule, tmp_path, seed=3)
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["modules"]["net.0.weight"]
    start, after_one = values
    average = start + (after_one - start) * (1 - 1 / 11)
    average = average + (last - average) * (1 - 2 / 12)
    torch.testing.assert_close(weight.detach(), average)


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = Schedule(1000, 2e-3, warmup=100, decay_share=0.3)
    assert schedule.rate(0) == pytest.approx(2e-5)
    assert schedule.rate(49) == pytest.approx(1e-3)
    assert schedule.rate(99) == schedule.rate(400) == schedule.rate(700) == pytest.approx(2e-3)
    assert schedule.rate(850) == pytest.approx(1e-3)
    assert 0 < schedule.rate(999) < 1e-5
    assert schedule.rate(1000) == 0


def test_the_log_has_losses_and_the_console_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "vae", every_step())
    lines = [json.loads(line) for line in (tmp_path / "vae" / "log.jsonl").open()]
    assert [line["step"] for line in lines] == [STEPS]
    assert lines[0].keys() == {"step", "seconds", "loss", "error"}
    assert f"vae {STEPS}/{STEPS}" in capsys.readouterr().out
