"""The processes that train one cell together, seen from one of them.

Each is a *rank*. The run starts them as it starts every cell's process (``benchmark.workers``), and
here accelerate's ``PartialState`` gives each its device and makes the group: gloo on the CPU, NCCL
on GPUs, one a rank. accelerate's launchers do not fit. ``notebook_launcher`` and ``debug_launcher``
fork a process whose torch may have threads, and a cell's process, being a daemon, may have no
children; ``accelerate launch`` begins new interpreters, which import everything anew. The agents of
``notebook_launcher`` and ``accelerate launch`` kill the ranks on SIGTERM, where a cell is to finish
its round and save it, and open a port of one number, which two cells at a time would both want.

The ranks find each other by a file, since they are on one machine. What is not asked of the group
goes by that file too, so that a rank may wait for an evaluation of whatever length, outside the
group's time limit.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta

import psutil
import torch.distributed as dist

from benchmark import capacity
from benchmark.jobs import Place
from benchmark.model_settings import ModelSettings
from diffusion.ledger import COUNTERS, Ledger
from diffusion.randomness import derive_seed
from methods import processes

POLL_SECONDS = 0.1
OVER = "over"
"""What the first rank tells when it ends, in whatever way."""
OF_ALL = ("optimizer_steps",)
"""Counters of what ranks do together, and not each a share of."""


class Ranks:
    """The group, once joined; a cell of one process is the first and only rank."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place = place or Place()
        self._told = dict.fromkeys(COUNTERS, 0)
        self._told_joules = 0.0
        if place.count > 1:
            self._words = dist.FileStore(str(place.file), place.count)

    @property
    def leads(self) -> bool:
        """See ``Place``."""
        return self.place.leads

    def join(self, model: ModelSettings, seed: int, threads: int) -> None:
        """Make the group; returns once all ranks are there.

        Global generators get a seed of each rank: nothing of this program draws from one, but a
        reward or method from elsewhere may, and ranks that draw the same are worth one. Raises
        ``ValueError`` where there are fewer GPUs than ranks.
        """
        if self.place.count == 1:
            return
        from accelerate import PartialState
        from accelerate.utils import set_seed

        place = self.place
        if reason := capacity.shortage(model):
            raise ValueError(f"model.processes: {reason}")
        on_cpu = not capacity.on_gpu(model)
        rank, count = str(place.rank), str(place.count)
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        os.environ |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else accelerate takes all cores
        if on_cpu and (loopback := _loopback()):  # reached by nobody else
            os.environ["GLOO_SOCKET_IFNAME"] = loopback
        PartialState(
            cpu=on_cpu,
            backend="gloo" if on_cpu else "nccl",
            store=self._words,
            rank=place.rank,
            world_size=place.count,
            timeout=timedelta(seconds=place.limit),
        )
        set_seed(derive_seed(seed, "rank", place.rank) % 2**32)

    def tell(self, key: str, word: str = "") -> None:
        """Say something to the others, once."""
        if self.place.count > 1:
            self._words.set(key, word)

    def hear(self, key: str) -> str:
        """What was told, once it is; raises ``processes.Lost`` if the first rank has ended.

        Asked for again and again, so that signals are seen meanwhile.
        """
        while not self._words.check([key]):
            if self._words.check([OVER]) and not self._words.check([key]):
                raise processes.Lost(f"process {self.place.rank}: the first one has ended")
            time.sleep(POLL_SECONDS)
        return str(self._words.get(key).decode())

    def add_costs(self, ledger: Ledger) -> None:
        """Have the first rank's ledger count what the others have done since the last call."""
        if self.place.count == 1:
            return
        counts, joules = ledger.counts(), ledger.joules or 0.0
        own = [float(counts[name] - self._told[name]) for name in COUNTERS]
        own.append(joules - self._told_joules)
        others = [a - b for a, b in zip(processes.totals(own), own, strict=True)]
        if self.leads:
            for name, work in zip(COUNTERS, others[:-1], strict=True):
                if name not in OF_ALL:
                    ledger.add(name, round(work))
            if ledger.joules is not None:
                ledger.joules += others[-1]
        self._told, self._told_joules = ledger.counts(), ledger.joules or 0.0


def _loopback() -> str | None:
    """Name of the network interface of this machine alone."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == "127.0.0.1" for address in addresses):
            return name
    return None
