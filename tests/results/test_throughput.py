"""Ratios of throughput over pairs of rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.records import Counts
from results.throughput import Machine, MethodThroughput, WarmUp, log_ratio_interval, ratio

HERE = Machine(cpu="a processor", cpu_threads=1, gpu=None)


def measured(
    method: str, seconds: list[float], images: float = 8, machine: Machine = HERE
) -> MethodThroughput:
    return MethodThroughput(
        method=method,
        machine=machine,
        first_round_seconds=1,
        warm_up=WarmUp(seconds=[], settled=False),
        round_seconds=seconds,
        median_seconds=1,
        quartiles_seconds=(1, 1),
        images_per_round=images,
        sampled_images_per_second=1,
        trained_images_per_second=1,
        seconds_by_phase={},
        network_seconds={},
        network_share=1,
        joules=None,
        peak_memory_bytes=1,
        peak_memory_is_of_rounds=True,
        peak_gpu_allocated_bytes=None,
        peak_gpu_reserved_bytes=None,
        counts=Counts(),
    )


def test_a_ratio_is_of_images_and_takes_rounds_in_pairs() -> None:
    # The machine slows threefold half way; twice the images in as many seconds.
    seconds = [1.0, 1.1, 3.0, 3.3]
    found = ratio(measured("dag", seconds, images=16), measured("ddpo", seconds))
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))
    assert (found.method, found.reference, found.pairs) == ("dag", "ddpo", 4)
    back = ratio(measured("ddpo", seconds), measured("dag", seconds, images=16))
    assert back.ratio == pytest.approx(1 / found.ratio)


def test_machines_are_never_mixed() -> None:
    gpu = Machine(cpu="a processor", cpu_threads=1, gpu="a GPU")
    with pytest.raises(ValueError, match="a GPU"):
        ratio(measured("dag", [1.0]), measured("ddpo", [1.0], machine=gpu))
    with pytest.raises(ValueError, match="shorter|longer"):
        ratio(measured("dag", [1.0]), measured("ddpo", [1.0, 2.0]))


def test_the_interval_covers_the_ratio_95_percent_of_the_time() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        drift = random.normal(0, 0.5, 8)  # common to both, and larger than what is compared
        mine, other = (np.exp(drift + random.normal(0, 0.05, 8)) for _ in range(2))
        interval = log_ratio_interval((1.3 * mine).tolist(), other.tolist())
        covered += interval.low <= 1.3 <= interval.high
        assert interval.high / interval.low < 1.35  # the drift has dropped out
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_pair_has_no_interval() -> None:
    interval = log_ratio_interval([2.0], [1.0])
    assert interval.mean == 2
    assert math.isnan(interval.low) and math.isnan(interval.high)
