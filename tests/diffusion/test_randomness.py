"""One generator for each purpose."""

from __future__ import annotations

import itertools

import torch

from diffusion.randomness import derive_seed, generator


def test_the_same_purpose_gives_the_same_numbers() -> None:
    one, same = (torch.randn(100, generator=generator(3, "rollout", 1)) for _ in range(2))
    assert torch.equal(one, same)


def test_purposes_and_seeds_do_not_meet() -> None:
    """Words are kept apart: ("ab", "c") is not ("a", "bc"), 1 is not "1"."""
    purposes: list[tuple[str | int, ...]] = [
        (), ("a",), ("ab", "c"), ("a", "bc"), ("abc",), ("a", 1), ("a", "1"), ("a", 1, 2),
        ("a", 12), (1,), (2,),
    ]  # fmt: skip
    seeds = {derive_seed(s, *purpose) for s, purpose in itertools.product((0, 1, 12), purposes)}
    assert len(seeds) == 3 * len(purposes)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stored_result_can_be_drawn_again() -> None:
    """Written out: no version of the program may change which numbers a seed stands for."""
    assert derive_seed(0, "rollout", 3) == 211106634516208403
