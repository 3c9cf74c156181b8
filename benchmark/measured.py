"""A method whose rounds are timed, in turns with others that train the same policy."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

import methods
from benchmark import energy, memory
from benchmark.scoring import CountedReward, counted_gradient
from benchmark.suite import Suite
from benchmark.warm_up import warm_up
from diffusion.ledger import Ledger
from diffusion.policy import Policy
from methods import MethodConfig
from results.records import Counts
from results.throughput import Machine, MethodThroughput, WarmUp
from rewards import Reward


class MeasuredMethod:
    """One method on the policy that all share.

    Every round begins from the untrained weights and the method's own state, so that rounds are
    alike however many there are; ``steps`` is how many there will be at most. Raises
    ``ValueError`` when the method cannot run on the reward, or does not train.
    """

    def __init__(
        self,
        name: str,
        config: MethodConfig,
        policy: Policy,
        reward: Reward,
        suite: Suite,
        steps: int,
    ) -> None:
        self.name, self.policy = name, policy
        self.ledger = Ledger(synchronise=True)
        self.ledger.energy = energy.counter(policy.device)
        self.method = self._build(config, reward, suite, steps)
        self.untrained = policy.state_dict()
        self.seconds: list[float] = []
        self.peaks: list[dict[str, int | None]] = []
        self.resident: list[int] = []
        self.resident_is_of_round = True
        self.first = 0.0
        self.warm_up = WarmUp(seconds=[], settled=False)

    def _build(
        self, config: MethodConfig, reward: Reward, suite: Suite, steps: int
    ) -> methods.Method:
        """The method with the suite's budget, or a larger one that holds ``steps`` rounds."""
        kind = methods.get(self.name)
        self.policy.ledger = self.ledger

        def build(images: int) -> methods.Method:
            task = methods.Task(
                policy=self.policy,
                reward=CountedReward(reward, self.ledger),
                reward_gradient=counted_gradient(reward, self.ledger),
                prompts=suite.prompts.train,
                seed=suite.seeds[0],
                images=images,
            )
            return kind(task, config)

        method = build(suite.budget.images)
        if not method.trains:
            raise ValueError(f"{self.name} does not train")
        if method.rounds < 1:
            raise ValueError(f"{self.name} has no round in {suite.budget.images} images")
        if method.rounds < steps:
            method = build(suite.budget.images * -(-steps // method.rounds))
        return method

    def run_round(self) -> float:
        """Seconds of one round, from and to where the device has nothing left to do."""
        self.policy.ledger = self.ledger
        self.policy.load_state_dict(self.untrained)
        of_round = memory.reset()
        self._synchronise()
        started = time.perf_counter()
        with self.ledger.training():
            self.method.step()
            self._synchronise()
        seconds = time.perf_counter() - started
        self.resident.append(memory.peak_resident())
        self.resident_is_of_round &= of_round
        self.peaks.append(memory.gpu_peaks())
        return seconds

    def _synchronise(self) -> None:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize()

    def prepare(self, cap: int) -> None:
        """The first round, then the warm-up; what they cost is forgotten."""
        self.first = self.run_round()
        seconds, settled = warm_up(self.run_round, cap)
        self.warm_up = WarmUp(seconds=seconds, settled=settled)
        self.ledger.load_state_dict(Ledger().state_dict())
        self.peaks.clear()
        self.resident.clear()

    def measure(self) -> None:
        """One round that counts."""
        self.seconds.append(self.run_round())

    def result(self, machine: Machine) -> MethodThroughput:
        """What the rounds that count have shown."""
        total, images = sum(self.seconds), self.ledger.images
        phases, networks = self.ledger.training_seconds, self.ledger.network_seconds
        low, high = (float(q) for q in np.quantile(self.seconds, [0.25, 0.75]))
        sampling = phases.get("sample", 0.0)
        peaks = {
            name: None if value is None else max(each[name] or 0 for each in self.peaks)
            for name, value in self.peaks[-1].items()
        }
        return MethodThroughput(
            method=self.name,
            machine=machine,
            first_round_seconds=self.first,
            warm_up=self.warm_up,
            round_seconds=self.seconds,
            median_seconds=statistics.median(self.seconds),
            quartiles_seconds=(low, high),
            images_per_round=images / len(self.seconds),
            sampled_images_per_second=images / sampling if sampling else float("nan"),
            trained_images_per_second=images / total,
            seconds_by_phase=phases,
            network_seconds=networks,
            network_share=sum(networks.values()) / total,
            joules=self.ledger.joules,
            peak_memory_bytes=max(self.resident),
            peak_memory_is_of_rounds=self.resident_is_of_round,
            counts=Counts(**self.ledger.counts()),
            **peaks,
        )
