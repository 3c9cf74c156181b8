"""Whether a method may be trained by several processes, tried with two threads of this one.

What ``methods.processes`` asks of ``torch.distributed`` is answered by a group whose members are
threads, so that a check needs no ports, no files and no second start of torch. The tests do the
same over gloo with two real processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from benchmark.conformance.checks import Checks, Finding, NotApplicable
from benchmark.conformance.trial import Trial, differing, require_training
from benchmark.conformance.watch import Watch
from methods import processes

CHECKS: Checks[Trial] = Checks()
Result = TypeVar("Result")
SIZE = 2


class Threads:
    """A process group of threads; a thread that has no rank in it sees no group."""

    ReduceOp = dist.ReduceOp

    def __init__(self) -> None:
        self._own = threading.local()
        self._barrier = threading.Barrier(SIZE)
        self._slots: list[Tensor] = [torch.empty(0)] * SIZE

    def is_available(self) -> bool:
        """See ``torch.distributed``."""
        return True

    def is_initialized(self) -> bool:
        """Whether the thread has a rank."""
        return hasattr(self._own, "rank")

    def get_world_size(self) -> int:
        """See ``torch.distributed``."""
        return SIZE

    def get_rank(self) -> int:
        """See ``torch.distributed``."""
        return int(self._own.rank)

    def get_backend(self) -> str:
        """The CPU's."""
        return "gloo"

    def all_gather(self, parts: list[Tensor], own: Tensor) -> None:
        """See ``torch.distributed``."""
        for part, value in zip(parts, self._exchanged(own), strict=True):
            part.copy_(value)

    def all_reduce(self, own: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
        """See ``torch.distributed``; sums and maxima."""
        values = torch.stack(self._exchanged(own))
        own.copy_(values.amax(0) if operation == dist.ReduceOp.MAX else values.sum(0))

    def meet(self) -> None:
        """Wait until every member is here."""
        self._barrier.wait()

    def _exchanged(self, own: Tensor) -> list[Tensor]:
        self._slots[self.get_rank()] = own.detach().clone()
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()  # nobody writes before all have read
        return values

    @contextmanager
    def rank(self, rank: int) -> Iterator[None]:
        """Inside, this thread is one of the group; if it fails, the others do not wait for it."""
        self._own.rank = rank
        try:
            yield
        except BaseException:
            self._barrier.abort()
            raise
        finally:
            del self._own.rank


@contextmanager
def group_of_threads() -> Iterator[Threads]:
    """Inside, methods see a group of threads in the place of ``torch.distributed``."""
    group, own = Threads(), processes.dist
    setattr(processes, "dist", group)  # noqa: B010 (mypy knows the module's type)
    try:
        yield group
    finally:
        setattr(processes, "dist", own)  # noqa: B010


def in_each(group: Threads, work: Callable[[], Result]) -> list[Result]:
    """What ``work`` gives in each member; raises what the first to fail raised."""
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def member(rank: int) -> None:
        try:
            with group.rank(rank):
                results[rank] = work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    follows = (threading.BrokenBarrierError, processes.Lost)  # from what another has raised
    for error in sorted(errors, key=lambda e: isinstance(e, follows)):
        raise error
    return [results[rank] for rank in range(SIZE)]


def trained(
    trial: Trial, meet: Callable[[], None] = lambda: None
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Weights after two rounds, and the gradients at the first optimizer step, none without.

    ``meet`` waits for the other members: a watch registers with all optimizers of the program, of
    which none may be stepping meanwhile.
    """
    method = trial.start(gradient_clip=1e9)  # without the clip, which would hide a wrong length
    with Watch(method.policy) as watch:
        meet()
        method.step()
        meet()
    meet()
    method.step()
    return method.policy.state_dict(), watch.gradients[0] if watch.gradients else []


@CHECKS(
    "two processes take the step of one, or are refused",
    "first gradient of two processes against one, relative; their weights bit for bit",
)
def two_processes(trial: Trial) -> Finding:
    """Two rounds; a method that is declared to train in one process alone has to refuse two."""
    require_training(trial)
    alone = trained(trial)
    with group_of_threads() as group:
        if not trial.kind.several_processes:
            return _refusal(trial, group)
        together = in_each(group, lambda: trained(trial, group.meet))
    if apart := differing(together[0][0], together[1][0]):
        return Finding(len(apart), 0, f"two processes end with different weights {apart[0]}")
    if not alone[1] or not trial.kind.micro_batch_invariant:
        return Finding(0, trial.gradient_rounding)
    one, two = (torch.cat([g.flatten() for g in side[1]]) for side in (alone, together[0]))
    return Finding(
        float((two - one).abs().max() / one.abs().max()),
        trial.gradient_rounding,
        "two processes together have another gradient than one",
    )


def _refusal(trial: Trial, group: Threads) -> Finding:
    with group.rank(0):
        try:
            trial.start()
        except ValueError:
            raise NotApplicable("it trains in one process alone, and refuses two") from None
    return Finding(1, 0, "declared to train in one process alone, it starts in a group of two")
