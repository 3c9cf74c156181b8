"""How many cells this machine has room for."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from benchmark import environment
from benchmark.models import NAMED, RANDOM, find_model
from benchmark.suite import ModelSettings, Suite

CELL_BYTES = 1_440_000_000
"""Resident memory of a cell at its peak: the most of earlier reference results, on a CPU;
of the 90 cells of ``docs/reference`` 1.41 GB.
Those were of the model that comes with the program; weights of another are put on top."""
CGROUP = Path("/sys/fs/cgroup")


def workers(model: ModelSettings, cells: int) -> int:
    """One process of a cell a core, as far as the free memory goes; one cell in all on GPUs, which
    cells would only take from each other."""
    if on_gpu(model):
        return 1
    room = available() // (CELL_BYTES + _weights(model.name))
    return max(1, min(environment.cores() // model.processes, cells, room // model.processes))


def threads(suite: Suite, cells: int, on_ray: bool = False) -> int:
    """Of each process of a cell: the suite's number or, where that is ``auto``, the cores divided
    among all processes that run at a time; on Ray, the CPUs that are kept for the cell among its
    own. Of all ``cells`` of the run, not those still to run: a cell that goes on has as many."""
    if suite.threads != "auto":
        return suite.threads
    if on_ray:
        return max(1, int(suite.cpus_per_cell or 1) // suite.model.processes)
    at_a_time = suite.workers or workers(suite.model, cells)
    return max(1, environment.cores() // (at_a_time * suite.model.processes))


def on_gpu(model: ModelSettings) -> bool:
    """Whether cells compute on GPUs here."""
    return model.device != "cpu" and torch.cuda.is_available()


def shortage(model: ModelSettings) -> str:
    """What is said where a cell's processes have not a GPU each here; empty if they have."""
    found = torch.cuda.device_count() if on_gpu(model) else model.processes
    if found >= model.processes:
        return ""
    return f"{model.processes} processes need a GPU each, and {found} are here"


def available() -> int:
    """Bytes of memory that are free, also of what a container may take."""
    free = int(psutil.virtual_memory().available)
    try:
        most, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or "max": one without a limit
        return free
    return min(free, max(0, most - used))


def _weights(name: str) -> int:
    """Bytes of the weights of a model in a folder of one's own or of random ones; what is loaded of
    a hub id is not known beforehand."""
    if name in RANDOM:
        return 4 * RANDOM[name]
    folder = None if name in NAMED else find_model(name)
    if folder is None or folder.is_file():
        return 0
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
