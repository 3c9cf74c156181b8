"""How long a suite will take here: its work counted, and a few calls of its networks timed.

Work is counted, not guessed: each method runs one round on a model of a few hundred weights with
the suite's own options, and the ledger counts its UNet samples, decodes and reward calls. What they
cost is then measured on the suite's own model: a few calls each, forward, with gradient, the
decoder, and the scoring of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

import methods
from benchmark import capacity, encoders, environment
from benchmark.augmentations import AUGMENTATIONS
from benchmark.conformance.tiny import TinyPolicy
from benchmark.conformance.trial import Tint
from benchmark.matrix import BASE, Cell
from benchmark.policies import build_policy
from benchmark.resolution import ResolvedSuite
from benchmark.scoring import CountedReward, counted_gradient
from diffusion.ledger import Ledger
from diffusion.policy import Policy
from diffusion.randomness import generator
from diffusion.rollout import sample

BATCH = 16
"""Images of a probing call."""
REPEATS = 3
"""Calls of which the fastest counts: what else the machine does only adds to it."""
STARTING = 1.5
"""Seconds of a cell's process before it loads anything, from the fork server."""


@dataclass(frozen=True)
class Costs:
    """Seconds on this machine, one thread a cell as in a run."""

    setup: float
    """Loading the model, rewards and encoders."""
    forward: float
    """Of one sample through the UNet."""
    gradient: float
    """Of one sample through the UNet and back, the forward pass included."""
    decode: float
    """Of one image through the VAE."""
    score: float
    """Of one image by all rewards and encoders of an evaluation."""
    reward: dict[str, float]
    """Of one image by each reward that is trained on."""


@dataclass(frozen=True)
class Estimate:
    """What a suite will take."""

    costs: Costs
    cells: dict[str, float]
    """Cell id to seconds; cells that do not apply are left out."""
    workers: int

    @property
    def seconds(self) -> float:
        """Of the whole run, cells dealt to the workers in order."""
        free = [0.0] * self.workers
        for seconds in self.cells.values():
            first = free.index(min(free))
            free[first] += seconds
        return max(free)


def estimate(resolved: ResolvedSuite) -> Estimate:
    """Seconds of every cell and of the run on this machine; takes some seconds itself.

    Raises ``ValueError`` for a suite whose model makes points, which has no networks to speak of.
    """
    suite = resolved.suite
    if any(reward.scores == "point" for reward in resolved.judges.values()):
        raise ValueError(f"suite {suite.name} makes points; only suites of images are estimated")
    before = torch.get_num_threads()
    torch.set_num_threads(capacity.threads(suite, len(resolved.cells())))
    try:
        costs = measure(resolved)
    finally:
        torch.set_num_threads(before)
    cells = [cell for cell in resolved.cells() if not cell.not_applicable]
    work = {name: count(resolved, name) for name in resolved.methods}
    seconds = {cell.id: _seconds(resolved, cell, work[cell.method], costs) for cell in cells}
    at_a_time = environment.cores() // suite.model.processes
    alone = capacity.on_gpu(suite.model)
    workers = suite.workers or (1 if alone else min(at_a_time, len(cells)))
    return Estimate(costs, seconds, max(1, workers))


def count(resolved: ResolvedSuite, name: str) -> dict[str, float]:
    """Counts of the ledger of a method's whole training in the suite's budget."""
    suite, kind = resolved.suite, resolved.methods[name]
    if not kind.trains:
        return {}
    policy = TinyPolicy(
        steps=suite.model.sampling_steps,
        eta=suite.model.eta,
        guidance_scale=suite.model.guidance_scale,
    )
    reward = Tint()
    task = methods.Task(
        policy=policy,
        reward=CountedReward(reward, policy.ledger),
        reward_gradient=counted_gradient(reward, policy.ledger),
        prompts=tuple(suite.prompts.train),
        seed=suite.seeds[0],
        images=suite.budget.images,
        evaluation_images=len(suite.prompts.test) * suite.evaluation.images_per_prompt,
    )
    method = kind(task, resolved.configs[name])
    method.step()
    return {key: value * method.rounds for key, value in policy.ledger.counts().items()}


def measure(resolved: ResolvedSuite) -> Costs:
    """Time a few calls of the suite's own networks."""
    suite = resolved.suite
    started = time.perf_counter()
    policy = build_policy(suite.model, suite.seeds[0], Ledger())
    judges = list(resolved.judges.values())
    encode = [encoders.load(name, policy.device) for name in suite.evaluation.encoders]
    prompts = [suite.prompts.test[index % len(suite.prompts.test)] for index in range(BATCH)]
    generators = [generator(0, "probe", index) for index in range(BATCH)]
    latents = sample(policy, prompts, generators, batch_size=BATCH)
    with torch.no_grad():
        images = policy.decode(latents).clamp(0, 1)

    def score() -> None:
        with torch.no_grad():
            for reward in judges:
                reward(images, prompts)
            for each in encode:
                each(images)

    score()  # loads what is loaded at first use
    setup = time.perf_counter() - started

    def decode() -> None:
        with torch.no_grad():
            policy.decode(latents)

    passes = 2 if suite.model.guidance_scale != 1 else 1
    return Costs(
        setup=setup,
        forward=_fastest(lambda: _predict(policy, latents, prompts), policy) / BATCH / passes,
        gradient=_fastest(lambda: _train(policy, latents, prompts), policy) / BATCH / passes,
        decode=_fastest(decode, policy) / BATCH,
        score=_fastest(score, policy) / BATCH,
        reward={
            name: _fastest(partial(reward, images, prompts), policy) / BATCH
            for name, reward in resolved.rewards.items()
        },
    )


@torch.no_grad()
def _predict(policy: Policy, latents: torch.Tensor, prompts: list[str]) -> None:
    step = torch.zeros(len(latents), dtype=torch.long, device=policy.device)
    policy.predict_noise(latents, step, policy.encode(prompts))


def _train(policy: Policy, latents: torch.Tensor, prompts: list[str]) -> None:
    step = torch.zeros(len(latents), dtype=torch.long, device=policy.device)
    noise = policy.predict_noise(latents, step, policy.encode(prompts))
    noise.guided.square().mean().backward()
    for parameter in policy.parameters():
        parameter.grad = None


def _fastest(call: Callable[[], object], policy: Policy) -> float:
    seconds = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        call()
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _seconds(resolved: ResolvedSuite, cell: Cell, work: dict[str, float], costs: Costs) -> float:
    """Of one cell: setup, training, and every evaluation."""
    suite, kind = resolved.suite, resolved.methods[cell.method]
    evaluation, prompts = suite.evaluation, suite.prompts
    passes = suite.model.sampling_steps * (2 if suite.model.guidance_scale != 1 else 1)
    drawn = passes * costs.forward + costs.decode
    tested = len(prompts.test) * evaluation.images_per_prompt
    setup = STARTING + costs.setup
    reward = costs.reward.get(cell.reward, sum(costs.reward.values()))
    once = tested * (drawn + costs.score + len(AUGMENTATIONS) * reward)
    further = (len(suite.etas) - 1) * tested * (drawn + costs.score)
    if not kind.trains:
        candidates = 1 if cell.method == BASE else max(1, suite.budget.images // tested)
        return setup + once + (candidates - 1) * tested * drawn + (candidates == 1) * further
    backward = work["unet_backward"]
    training = (
        (work["unet_forward"] - backward) * costs.forward
        + backward * costs.gradient
        + work["vae_decode"] * costs.decode
        + work["reward_calls"] * reward
    )
    # Of several processes a cell, each trains on a share, as far as there are cores for them.
    several = suite.model.processes
    training /= several if capacity.on_gpu(suite.model) else min(several, environment.cores())
    once += len(prompts.test) * evaluation.path_kl_images * passes * costs.forward
    if evaluation.checkpoint == "best-on-validation":
        once += len(prompts.validation) * evaluation.validation_images_per_prompt * drawn
    return setup + training + evaluation.times * once + further
