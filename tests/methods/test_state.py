"""The state that is found in a method's attributes."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark import state_file
from methods.state import attributes_state, load_attributes

CPU = torch.device("cpu")


def draws(owner: Any) -> list[Any]:
    """What comes next of all that changes."""
    owner.optimizer.zero_grad()
    owner.network(torch.ones(1, 3)).sum().backward()
    owner.optimizer.step()
    return [
        owner.network.weight.detach().clone(),
        torch.randn(2, generator=owner.torch),
        owner.numpy.normal(),
        owner.mersenne.normal(),
        owner.python.random(),
        owner.buffer.copy(),
        owner.table | {3: owner.table[3] + 1},
        owner.mean.clone(),
        owner.array.copy(),
        owner.known,
        owner.rounds,
    ]


def make() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(3, 1)
    return SimpleNamespace(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=0.1),
        torch=torch.Generator().manual_seed(0),
        numpy=np.random.default_rng(0),
        mersenne=np.random.Generator(np.random.MT19937(0)),
        python=random.Random(0),
        buffer=deque([1.0], maxlen=2),
        table={3: 0},
        mean=torch.zeros(2, dtype=torch.float64),
        array=np.zeros(2, dtype=np.float32),
        known=None,
        rounds=0,
        function=print,
        kind=nn.Linear,
        config=object(),
    )


def changed() -> Any:
    owner = make()
    draws(owner)
    owner.buffer.extend([0.1 + 0.2, 4.0])
    owner.table[3], owner.table["x"] = 7, [1, (2, None)]
    owner.mean += 1 / 3
    owner.array += 1
    owner.known = torch.arange(3)
    owner.rounds = 5
    return owner


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(other) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


def test_everything_goes_on_from_the_bytes_of_its_state() -> None:
    straight = changed()
    content = state_file.pack(attributes_state(straight, ("config",)))
    resumed = make()
    alias = resumed.mean
    load_attributes(resumed, state_file.unpack(content), CPU)
    assert resumed.mean is alias
    assert resumed.buffer.maxlen == 2
    for _ in range(2):
        assert equal(draws(straight), draws(resumed))


def test_a_state_is_a_copy() -> None:
    owner = changed()
    content = state_file.pack(attributes_state(owner, ()))
    state = attributes_state(owner, ())
    draws(owner)
    owner.mean += 1
    owner.table[3] += 1
    assert state_file.pack(state) == content
    assert "function" not in state and "kind" not in state and "config" not in state
