"""The state of a method, found in its attributes.

What training changes has to be saved for a cell to go on after a stop. It is taken from where it
stands, so that a method is resumed without a line of its own: of every attribute that is

- an optimizer, a module, or anything else with ``state_dict`` and ``load_state_dict``,
- a tensor, an array, or a generator of torch, NumPy or Python,
- a plain value, or a list, deque, tuple or dictionary of these.

Attributes that are anything else, such as functions and configurations, are taken to have no
state. Whether that is true of a method, the conformance checks tell, bit for bit.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


@runtime_checkable
class Stateful(Protocol):
    """Knows its own state: ``torch.nn.Module``, ``torch.optim.Optimizer``, ..."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


class _NoState(Exception):
    """A value whose state cannot be taken."""


def attributes_state(owner: object, leave_out: Collection[str]) -> dict[str, Any]:
    """Copies of what the attributes of ``owner`` hold, by name: tensors and plain values."""
    state = {}
    for name, value in vars(owner).items():
        if name not in leave_out:
            try:
                state[name] = copied(value)
            except _NoState:
                continue
    return state


def load_attributes(owner: object, state: dict[str, Any], device: torch.device) -> None:
    """Puts the attributes of ``owner`` where :func:`attributes_state` took them.

    Tensors that are there already keep their identity, so that an optimizer goes on seeing them;
    new ones are made on ``device``. What has a state of its own has to be there already.
    """
    for name, saved in state.items():
        setattr(owner, name, _restored(getattr(owner, name, None), saved, device))


def copied(value: Any) -> Any:
    """A copy of a value's state on the CPU."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(copied, value))
    if isinstance(value, list | deque):
        return list(map(copied, value))
    return copied(_own_state(value))


def _own_state(value: Any) -> Any:
    """What an object itself tells of its state."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, Stateful) and not isinstance(value, type):
        return value.state_dict()
    raise _NoState


def _restored(current: Any, saved: Any, device: torch.device) -> Any:
    """``saved`` in the place of ``current``, which is changed in place where it can be."""
    if isinstance(saved, torch.Tensor):
        return _restored_tensor(current, saved, device)
    if isinstance(current, np.random.Generator):
        state = current.bit_generator.state
        current.bit_generator.state = _restored(state, saved, device)
        return current
    if isinstance(current, random.Random):
        current.setstate(saved)
        return current
    if isinstance(current, Stateful):
        current.load_state_dict(saved)
        return current
    if isinstance(saved, dict):
        before = dict(current) if isinstance(current, dict) else {}
        found = current if isinstance(current, dict) else {}
        found.clear()
        found.update({k: _restored(before.get(k), v, device) for k, v in saved.items()})
        return found
    if isinstance(saved, list | tuple):
        return _restored_sequence(current, saved, device)
    return saved


def _restored_tensor(current: Any, saved: torch.Tensor, device: torch.device) -> Any:
    if isinstance(current, torch.Generator):
        current.set_state(saved)
        return current
    if isinstance(current, np.ndarray):
        return saved.numpy().copy()
    if (
        isinstance(current, torch.Tensor)
        and current.shape == saved.shape
        and current.dtype == saved.dtype
    ):
        with torch.no_grad():
            current.copy_(saved)
        return current
    return saved.to(device, copy=True)


def _restored_sequence(current: Any, saved: list[Any] | tuple[Any, ...], device: Any) -> Any:
    there = list(current) if isinstance(current, list | tuple | deque) else []
    before = there if len(there) == len(saved) else [None] * len(saved)
    found = [_restored(b, s, device) for b, s in zip(before, saved, strict=True)]
    if isinstance(current, deque):
        return deque(found, current.maxlen)
    return tuple(found) if isinstance(saved, tuple) else found
