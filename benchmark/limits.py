"""Limits of a cell's time and memory, kept by the process that started it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """None where there is no limit."""

    seconds: float | None = None
    memory_gib: float | None = None

    def overtime(self, seconds: float) -> str:
        """What is said of a cell that has run for ``seconds``; empty within the limit."""
        if self.seconds is None or seconds <= self.seconds:
            return ""
        return f"over its time limit of {self.seconds:g} s"

    def over_memory(self, *processes: int) -> str:
        """What is said of a cell's processes with their children; empty within the limit.

        Resident memory is what counts: of the address space, torch reserves many times what it
        uses.
        """
        if self.memory_gib is None:
            return ""
        gib = sum(map(resident, processes)) / GIB
        if gib <= self.memory_gib:
            return ""
        return f"over its memory limit of {self.memory_gib:g} GiB: {gib:.2f} GiB resident"


def resident(process: int) -> int:
    """Resident memory of a process and its children, bytes; 0 if it has ended."""
    try:
        parent = psutil.Process(process)
        return sum(_of_one(each) for each in (parent, *parent.children(recursive=True)))
    except psutil.Error:
        return 0


def _of_one(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
