"""Several processes that align one policy together, over ``torch.distributed``.

Where a process group has been initialised, every process samples, scores and trains on its own
share of a round's trajectories; trajectories and rewards are gathered, and gradients added up, so
that all of them take the step that one process would take alone. Each process's ledger counts its
own work. Without a process group there is one process, and nothing here does anything.

What a round draws, it draws in every process from the same generators, ``Task.generator``: prompts,
the noise of each trajectory, which has a generator of its own, and the order of the updates. None
of it depends on how many processes there are. A method that draws for one process alone names
:func:`rank` among the generator's purposes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from diffusion.rollout import Trajectories


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


class Lost(RuntimeError):
    """The other processes do not answer any more: one has ended, or takes longer than the group's
    time limit."""


@contextmanager
def _asking() -> Iterator[None]:
    """Whatever a group raises inside is ``Lost``."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise Lost(f"process {rank()} of {count()} lost the others: {reason}") from error


def own(items: torch.Tensor) -> torch.Tensor:
    """This process's share of ``items`` ``[n]``, the shares lying side by side; may be empty."""
    return items.tensor_split(count())[rank()] if count() > 1 else items


def share(total: int) -> slice:
    """Which of a round's ``total`` trajectories are this process's.

    Raises ``ValueError`` when there are more processes than trajectories.
    """
    if total < count():
        raise ValueError(f"{count()} processes, but only {total} trajectories a round")
    mine = own(torch.arange(total))
    return slice(int(mine[0]), int(mine[-1]) + 1)


def gather(values: torch.Tensor, total: int, dim: int = 0) -> torch.Tensor:
    """The shares of all processes along ``dim``, whose size is then ``total``."""
    if count() == 1:
        return values
    sizes = [len(part) for part in torch.arange(total).tensor_split(count())]
    moved = values.detach().movedim(dim, 0)
    padded = moved.new_zeros((max(sizes), *moved.shape[1:]))
    padded[: len(moved)] = moved
    parts = [torch.empty_like(padded) for _ in sizes]
    with _asking():
        dist.all_gather(parts, padded)
    cut = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat(cut).movedim(0, dim)


def gather_trajectories(trajectories: Trajectories, prompts: list[str]) -> Trajectories:
    """The trajectories of all processes, of a round's ``prompts``."""
    if count() == 1:
        return trajectories
    n = len(prompts)
    states = trajectories.conditioning
    starts = (trajectories.starts + share(n).start).to(trajectories.latents.device)

    def along_samples(values: torch.Tensor) -> torch.Tensor:
        return gather(values, n, dim=1)

    t = trajectories
    return dataclasses.replace(
        t,
        prompts=prompts,
        conditioning=states.replaced(lambda values: gather(values, n)),
        latents=along_samples(t.latents),
        log_densities=along_samples(t.log_densities),
        noise_predictions=along_samples(t.noise_predictions),
        clean_predictions=along_samples(t.clean_predictions),
        conditional_clean_predictions=along_samples(t.conditional_clean_predictions),
        starts=gather(starts, n).cpu(),
    )


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Adds up the gradients of all processes; a loss is divided by the samples of all of them."""
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # this process's share was empty
            parameter.grad = torch.zeros_like(parameter)
        with _asking():
            dist.all_reduce(parameter.grad)


def total(value: float) -> float:
    """The sum of a number over all processes."""
    return totals([value])[0]


def totals(values: Sequence[float]) -> list[float]:
    """The sums of some numbers over all processes, in double precision."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(value: float) -> float:
    """The largest of a number over all processes."""
    return _reduced([value], dist.ReduceOp.MAX)[0]


def _reduced(values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
    if count() == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    reduced = torch.tensor(values, dtype=torch.float64, device=device)
    with _asking():
        dist.all_reduce(reduced, operation)
        return [float(value) for value in reduced]
