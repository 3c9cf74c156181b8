"""Falling rates and averaged weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion.ledger import Ledger
from methods.optimizer import LEAST_SHARE, Optimizer


def make(**options) -> tuple[nn.Parameter, Optimizer]:
    parameter = nn.Parameter(torch.ones(3))
    return parameter, Optimizer(Ledger(), [parameter], 0.1, 0.0, 1e9, **options)


def take_step(parameter: nn.Parameter, optimizer: Optimizer) -> None:
    parameter.grad = torch.ones(3)
    optimizer.step()


def test_a_cosine_falls_from_the_rate_to_a_hundredth() -> None:
    _, optimizer = make(decay="cosine")
    rates = []
    for share in (0.0, 0.5, 1.0, 1.5):
        optimizer.set_progress(share)
        rates.append(optimizer.adamw.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1 * (1 + LEAST_SHARE) / 2, 0.001, 0.001])


def test_a_constant_rate_stays() -> None:
    _, optimizer = make()
    optimizer.set_progress(0.9)
    assert optimizer.adamw.param_groups[0]["lr"] == 0.1


def test_the_average_is_exponential_and_leaves_training_alone() -> None:
    plain, without = make()
    parameter, optimizer = make(average=0.5)
    expected = torch.ones(3)
    for step in range(1, 30):
        take_step(plain, without)
        take_step(parameter, optimizer)
        kept = min(0.5, step / (step + 9))
        expected = kept * expected + (1 - kept) * parameter.detach()
        with optimizer.averaged():
            assert torch.allclose(parameter, expected)
        assert torch.equal(parameter, plain)


def test_without_an_average_evaluation_sees_the_weights() -> None:
    parameter, optimizer = make()
    take_step(parameter, optimizer)
    before = parameter.detach().clone()
    with optimizer.averaged():
        assert torch.equal(parameter, before)
    assert "mean" not in optimizer.state_dict()


def test_a_resumed_optimizer_goes_on_the_same() -> None:
    parameter, optimizer = make(average=0.9, decay="cosine")
    for _ in range(3):
        take_step(parameter, optimizer)
    other, resumed = make(average=0.9, decay="cosine")
    other.data.copy_(parameter.data)
    resumed.load_state_dict(optimizer.state_dict())
    for each in ((parameter, optimizer), (other, resumed)):
        take_step(*each)
    assert torch.equal(parameter, other)
    assert torch.equal(optimizer.mean[0], resumed.mean[0])


def test_an_exception_inside_brings_the_weights_back() -> None:
    parameter, optimizer = make(average=0.9)
    take_step(parameter, optimizer)
    before = parameter.detach().clone()
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert torch.equal(parameter, before)
