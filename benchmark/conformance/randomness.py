"""The global random generators, which nothing of the project may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def global_states() -> tuple[object, ...]:
    """States of the global generators of Python, NumPy and torch, to compare."""
    return (
        random.getstate(),
        repr(np.random.get_state(legacy=False)),  # noqa: NPY002 (it is to be left alone)
        torch.get_rng_state().numpy().tobytes(),
    )


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """The global generators of Python and torch seeded inside, and put back afterwards."""
    before = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
