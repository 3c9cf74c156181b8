"""What every training round begins with: its prompts, its generators, its rewards.

Prompts and generators depend on the seed and the round only, never on the method, so that methods
run with the same seed, the same shape of a round and the same ``initial_noise`` start from the same
prompts and noise.
"""

from __future__ import annotations

from typing import Protocol

import torch

from diffusion.kernel import Reduction
from diffusion.rollout import Trajectories, initial_latents, rollout
from methods import processes
from methods.interface import Task


class RoundConfig(Protocol):
    """The options that shape a round."""

    @property
    def prompts_per_round(self) -> int: ...
    @property
    def images_per_prompt(self) -> int: ...
    @property
    def images_per_round(self) -> int: ...
    @property
    def prompt_draw(self) -> str: ...
    @property
    def micro_batch_size(self) -> int: ...


class RolloutConfig(RoundConfig, Protocol):
    """The options that shape a round whose trajectories are kept."""

    @property
    def initial_noise(self) -> str: ...

    @property
    def reduction(self) -> Reduction: ...


def rounds_in_budget(task: Task, config: RoundConfig) -> int:
    """Whole rounds in the budget; raises ``ValueError`` when it does not hold one."""
    if task.images < config.images_per_round:
        raise ValueError(
            f"a budget of {task.images} images is less than one round of {config.images_per_round}"
        )
    return task.images // config.images_per_round


def draw_prompts(task: Task, round_index: int, count: int, draw: str) -> list[str]:
    """The prompts of a round.

    ``without_replacement`` goes through the training prompts in a new random order, and again in
    another only when ``count`` exceeds their number; ``independent`` draws each uniformly.
    """
    source = task.generator("prompts", round_index)
    total = len(task.prompts)
    if draw == "independent":
        order = torch.randint(total, (count,), generator=source)
    else:
        passes = -(-count // total)
        order = torch.cat([torch.randperm(total, generator=source) for _ in range(passes)])
    return [task.prompts[index] for index in order[:count].tolist()]


def draw_round(
    task: Task, round_index: int, config: RoundConfig
) -> tuple[list[str], list[torch.Generator]]:
    """Prompt and generator of each trajectory of a round, the images of a prompt side by side."""
    prompts = draw_prompts(task, round_index, config.prompts_per_round, config.prompt_draw)
    images = range(config.images_per_prompt)
    pairs = [(slot, image) for slot in range(len(prompts)) for image in images]
    generators = [task.generator("rollout", round_index, slot, image) for slot, image in pairs]
    return [prompts[slot] for slot, _ in pairs], generators


def shared_latents(task: Task, round_index: int, config: RoundConfig) -> torch.Tensor:
    """x_T ``[n, ...]`` of a round in which the images of a prompt start from the same."""
    slots = range(config.prompts_per_round)
    sources = [task.generator("initial", round_index, slot) for slot in slots]
    latents = initial_latents(task.policy, sources)
    return latents.repeat_interleave(config.images_per_prompt, dim=0)


def sample_round(
    task: Task, round_index: int, config: RolloutConfig
) -> tuple[Trajectories, torch.Tensor]:
    """Trajectories of the current policy on a round's prompts, and the rewards fp32 ``[n]`` of
    their images; of several processes each samples and scores its share."""
    prompts, generators = draw_round(task, round_index, config)
    own = processes.share(len(prompts))
    initial = (
        shared_latents(task, round_index, config) if config.initial_noise == "shared" else None
    )
    with task.policy.ledger.phase("sample"):
        trajectories = rollout(
            task.policy,
            prompts[own],
            generators[own],
            config.reduction,
            initial=None if initial is None else initial[own],
        )
    rewards = score(task, trajectories.final, prompts[own], config.micro_batch_size)
    return (
        processes.gather_trajectories(trajectories, prompts),
        processes.gather(rewards, len(prompts)),
    )


@torch.no_grad()
def score(task: Task, latents: torch.Tensor, prompts: list[str], batch_size: int) -> torch.Tensor:
    """Rewards fp32 ``[n]`` of the decoded latents ``[n, ...]``, on their device."""
    values = []
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        images = task.policy.decode(latents[part])
        values.append(task.reward(images, prompts[part]).to(latents.device, torch.float32))
    return torch.cat(values)


def reward_metrics(rewards: torch.Tensor) -> dict[str, float]:
    """Mean and population standard deviation of a round's rewards."""
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(correction=0)),
    }
