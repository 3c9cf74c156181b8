"""How fast methods train, as ``benchmark throughput`` writes it.

The unit of a ratio is the pair of rounds that ran one after the other: what slows the machine for
a while slows both, and drops out of their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from results.intervals import Interval, t_interval
from results.records import SCHEMA_VERSION, Counts, Environment, Record

FILE_NAME = "throughput.json"


class Machine(Record):
    """A class of machine; times of different ones are never compared."""

    cpu: str
    cpu_threads: int
    gpu: str | None
    """None where the CPU did the work."""

    def __str__(self) -> str:
        return self.gpu or f"{self.cpu}, {self.cpu_threads} threads"


class WarmUp(Record):
    """Rounds before those that count, the first apart."""

    seconds: list[float]
    settled: bool
    """Whether the rolling median settled; else the cap ended the warm-up."""


class MethodThroughput(Record):
    """One method on one machine; seconds are those of whole training rounds."""

    method: str
    machine: Machine
    first_round_seconds: float
    """With all that happens once: weights loaded, memory reserved, kernels chosen."""
    warm_up: WarmUp
    round_seconds: list[float]
    """Of the rounds that count, in order."""
    median_seconds: float
    quartiles_seconds: tuple[float, float]
    images_per_round: float
    sampled_images_per_second: float
    """Images over the seconds of the phase ``sample`` alone; NaN without that phase."""
    trained_images_per_second: float
    """Images over the seconds of the rounds."""
    seconds_by_phase: dict[str, float]
    """Of all rounds that count; they sum to their seconds."""
    network_seconds: dict[str, float]
    network_share: float
    """Seconds inside networks over seconds of the rounds."""
    joules: float | None
    """Of all rounds that count; None where the machine has no counter."""
    peak_memory_bytes: int
    """Most resident memory in a round, with all else that the process holds."""
    peak_memory_is_of_rounds: bool
    """False where it could only be measured since the process began."""
    peak_gpu_allocated_bytes: int | None
    peak_gpu_reserved_bytes: int | None
    counts: Counts
    """Of all rounds that count."""


class Ratio(Record):
    """Images trained a second of ``method`` over those of ``reference``, with a 95 % interval."""

    method: str
    reference: str
    machine: Machine
    pairs: int
    ratio: float
    """Geometric mean over pairs of rounds."""
    low: float
    high: float
    """NaN with one pair."""


class ThroughputRecord(Record):
    """One measurement: methods that ran in turns in one process."""

    schema_version: int = SCHEMA_VERSION
    suite: str
    reward: str
    seed: int
    rounds: int
    warm_up_cap: int
    environment: Environment
    protocol: str = ""
    """Hash of the suite's protocol; empty in files of before it was recorded."""
    methods: list[MethodThroughput] = Field(default_factory=list)
    ratios: list[Ratio] = Field(default_factory=list)
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Method to why it is not among ``methods``."""


def log_ratio_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Student's t interval of the mean of ``log(values / reference)`` over pairs, as a ratio.

    Raises ``ValueError`` where there are not as many of both.
    """
    logs = {
        pair: math.log(value / other)
        for pair, (value, other) in enumerate(zip(values, reference, strict=True))
    }
    interval = t_interval(logs)
    mean, low, high = (math.exp(end) for end in (interval.mean, interval.low, interval.high))
    return Interval(mean, low, high, {pair: math.exp(value) for pair, value in logs.items()})


def ratio(method: MethodThroughput, reference: MethodThroughput) -> Ratio:
    """Compare two methods, round by round.

    Raises ``ValueError`` where their machines differ, or their numbers of rounds.
    """
    if method.machine != reference.machine:
        raise ValueError(
            f"{method.method} ran on {method.machine}, {reference.method} on "
            f"{reference.machine}: their times do not compare"
        )
    rates, others = (
        [each.images_per_round / seconds for seconds in each.round_seconds]
        for each in (method, reference)
    )
    interval = log_ratio_interval(rates, others)
    return Ratio(
        method=method.method,
        reference=reference.method,
        machine=method.machine,
        pairs=len(rates),
        ratio=interval.mean,
        low=interval.low,
        high=interval.high,
    )
