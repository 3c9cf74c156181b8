"""Goes through sampled trajectories again, transition by transition, with gradient.

A round's trajectories are shuffled and split among its updates. Every trajectory's timesteps are
permuted independently, so a micro-batch holds transitions of many timesteps, and one update takes
all of its trajectories' transitions before the optimizer steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch

from diffusion.kernel import Reduction, Schedule, log_density, noising, score_scale
from diffusion.policy import Conditioning, Policy
from diffusion.rollout import Trajectories
from methods import processes


@dataclass(frozen=True)
class Order:
    """Which transitions an update visits, micro-batch by micro-batch."""

    batches: list[tuple[torch.Tensor, torch.Tensor]]
    """(trajectory, step), each long ``[n]``; this process's share of the update."""
    transitions: int
    """How many there are in all, over all processes."""
    subtrajectories: int | None = None
    """How many there are in all; only of ``subtrajectory_orders``."""
    lengths: list[list[int]] = field(default_factory=list)
    """Of the subtrajectories that a micro-batch consists of, one after the other."""


@dataclass(frozen=True)
class Transitions:
    """Transitions x_t to x_s of a micro-batch, as they were sampled; ``n`` leads each shape."""

    trajectory: torch.Tensor
    step: torch.Tensor
    prompts: list[str]
    conditioning: Conditioning
    latents: torch.Tensor
    """x_t."""
    next_latents: torch.Tensor
    """x_s."""
    log_density: torch.Tensor
    """Of the policy that sampled them, fp32 ``[n]``."""
    noise_prediction: torch.Tensor
    """Of the policy that sampled them, guided or of the conditional branch."""


def update_orders(
    source: torch.Generator,
    trajectories: int,
    steps: int,
    *,
    updates: int,
    micro_batch_size: int,
    timestep_fraction: float = 1.0,
    timestep_draw: str = "random",
    shared_timesteps: bool = False,
) -> list[Order]:
    """The transitions of each of a round's updates, in order.

    ``micro_batch_size`` changes only how they are gathered, unless ``shared_timesteps`` asks for
    groups of at most that many transitions of a single timestep each. ``timestep_draw`` "first"
    keeps to the beginning of the chain. Micro-batches differ in size by one at most; where several
    positions of an update's trajectories fit into one, they go together, position by position.
    Raises ``ValueError`` when there are more updates than trajectories.
    """
    if updates > trajectories:
        raise ValueError(f"{updates} updates a round, but only {trajectories} trajectories")
    used = max(1, int(steps * timestep_fraction))
    drawn_from = used if timestep_draw == "first" else steps
    shuffled = torch.randperm(trajectories, generator=source)
    permuted = torch.stack(
        [torch.randperm(drawn_from, generator=source)[:used] for _ in range(trajectories)]
    )
    orders = []
    for share in torch.tensor_split(shuffled, updates):
        batches = []
        for part in micro_batches(processes.own(share), micro_batch_size):
            together = max(1, micro_batch_size // len(part))
            for position in range(0, used, together):
                step = permuted[part, position : position + together].T
                if shared_timesteps:
                    step = step[:, :1].expand_as(step)
                batches.append((part.repeat(len(step)), step.flatten()))
        orders.append(Order(batches, len(share) * used))
    return orders


def subtrajectory_orders(
    source: torch.Generator,
    trajectories: int,
    steps: int,
    *,
    length: int,
    updates: int,
    micro_batch_size: int,
    timestep_fraction: float = 1.0,
    timestep_draw: str = "random",
) -> list[Order]:
    """As ``update_orders``, in subtrajectories of ``length`` consecutive transitions, which stay
    together.

    An update cuts the chains of its trajectories at the same steps: the first cut is drawn, so what
    is left at either end of a chain is shorter. With a ``timestep_fraction`` some pieces are left
    out, and one may be cut short. Raises ``ValueError`` when there are more updates than
    trajectories, or when a subtrajectory is longer than ``micro_batch_size``.
    """
    if updates > trajectories:
        raise ValueError(f"{updates} updates a round, but only {trajectories} trajectories")
    used = max(1, int(steps * timestep_fraction))
    drawn_from = used if timestep_draw == "first" else steps
    length = min(length, drawn_from)
    if length > micro_batch_size:
        raise ValueError(
            f"micro-batches of {micro_batch_size} transitions, but subtrajectories of {length}"
        )
    shuffled = torch.randperm(trajectories, generator=source)
    orders = []
    for share in torch.tensor_split(shuffled, updates):
        pieces = _pieces(source, drawn_from, used, length)
        batches, lengths = [], []
        for part in micro_batches(processes.own(share), micro_batch_size // length):
            for together in _packed(pieces, micro_batch_size // len(part)):
                trajectory = torch.cat([part.repeat_interleave(len(piece)) for piece in together])
                step = torch.cat([piece.repeat(len(part)) for piece in together])
                batches.append((trajectory, step))
                lengths.append([len(piece) for piece in together for _ in range(len(part))])
        orders.append(Order(batches, len(share) * used, len(share) * len(pieces), lengths))
    return orders


def _pieces(source: torch.Generator, steps: int, used: int, length: int) -> list[torch.Tensor]:
    """``used`` of the steps, in pieces of at most ``length`` in a row, in random order."""
    first = int(torch.randint(length, (), generator=source))
    cuts = sorted({0, *range(first, steps, length), steps})
    pieces = [torch.arange(begin, end) for begin, end in pairwise(cuts)]
    chosen, left = [], used
    for index in torch.randperm(len(pieces), generator=source).tolist():
        if left:
            chosen.append(pieces[index][:left])
            left -= len(chosen[-1])
    return chosen


def _packed(pieces: list[torch.Tensor], most: int) -> list[list[torch.Tensor]]:
    """Pieces in order, in groups of at most ``most`` steps, which no piece is longer than."""
    groups: list[list[torch.Tensor]] = []
    room = 0
    for piece in pieces:
        if len(piece) > room:
            groups.append([])
            room = most
        groups[-1].append(piece)
        room -= len(piece)
    return groups


def shared_squares(values: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """The squared sum of ``values`` ``[n]`` over each subtrajectory of a micro-batch, in equal
    parts on its transitions, ``[n]``: what they add up to is the sum of the squares."""
    sums = [part.sum().expand(len(part)) for part in values.split(lengths)]
    sizes = torch.tensor(lengths, device=values.device)
    return torch.cat(sums).square() / sizes.repeat_interleave(sizes)


def micro_batches(items: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """``items`` ``[n]`` in parts of at most ``size`` that differ by one at most."""
    return torch.tensor_split(items, -(-len(items) // size)) if len(items) else ()


def gather(
    policy: Policy,
    trajectories: Trajectories,
    trajectory: torch.Tensor,
    step: torch.Tensor,
    guided: bool = True,
) -> Transitions:
    """The transitions of ``trajectory[i]`` at ``step[i]``; ``guided`` chooses the noise
    prediction they carry."""
    device = trajectories.latents.device
    i, k = trajectory.to(device), step.to(device)
    latents = trajectories.latents[k, i]
    if guided:
        noise = trajectories.noise_predictions[k, i]
    else:
        clean = trajectories.conditional_clean_predictions[k, i]
        noise = implied_noise(policy.schedule, k, latents, clean)
    return Transitions(
        trajectory=i,
        step=k,
        prompts=[trajectories.prompts[index] for index in trajectory.tolist()],
        conditioning=trajectories.conditioning[i],
        latents=latents,
        next_latents=trajectories.latents[k + 1, i],
        log_density=trajectories.log_densities[k, i],
        noise_prediction=noise,
    )


def step_weights(policy: Policy, kind: str) -> torch.Tensor:
    """Weight of each step's transitions in the loss, fp32 ``[T]`` with mean 1; see
    ``interface.StepWeight``."""
    steps = torch.arange(policy.schedule.steps)
    if kind == "uniform":
        return torch.ones(len(steps), device=policy.device)
    inverse = 1 / score_scale(policy.schedule, steps, policy.eta)
    return (inverse / inverse.mean()).float().to(policy.device)


def implied_noise(
    schedule: Schedule, step: torch.Tensor, latents: torch.Tensor, clean: torch.Tensor
) -> torch.Tensor:
    """The noise prediction ``[n, ...]`` that a clean prediction was made from."""
    alpha = schedule.alpha(step).view(-1, *[1] * (latents.dim() - 1))
    return ((latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()).float()


def current_density(
    policy: Policy, transitions: Transitions, reduction: Reduction, guided: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log density fp32 ``[n]`` of the stored x_s under the current policy, and the noise
    prediction it rests on, both with gradient.

    ``guided=False`` uses the conditional branch alone: one network call fewer a sample, and a
    density that is not the sampler's.
    """
    t = transitions
    if guided:
        noise = policy.predict_noise(t.latents, t.step, t.conditioning).guided
    else:
        noise = policy.predict_conditional_noise(t.latents, t.step, t.conditioning)
    gaussian = policy.transition(t.step, t.latents, noise)
    return log_density(t.next_latents, gaussian, reduction), noise


def noising_density(policy: Policy, transitions: Transitions, reduction: Reduction) -> torch.Tensor:
    """Log density fp32 ``[n]`` of x_t under the noising kernel, log q(x_t | x_s)."""
    t = transitions
    return log_density(t.latents, noising(policy.schedule, t.step, t.next_latents), reduction)
