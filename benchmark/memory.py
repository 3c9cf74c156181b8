"""Peak memory: resident in the process, and on the GPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TypeVar

import torch

Value = TypeVar("Value")

_PROCESS = Path("/proc/self")


def peak_resident() -> int:
    """Most resident memory this process has had, in bytes, since :func:`reset` where it works."""
    try:
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, else KiB


def gpu_peaks() -> dict[str, int | None]:
    """``peak_gpu_allocated_bytes`` and ``peak_gpu_reserved_bytes``; None where CUDA is not used."""
    used = _uses_gpu()
    return {
        "peak_gpu_allocated_bytes": torch.cuda.max_memory_allocated() if used else None,
        "peak_gpu_reserved_bytes": torch.cuda.max_memory_reserved() if used else None,
    }


def peaks() -> dict[str, int | None]:
    """All of them by name, in bytes."""
    return {"peak_memory_bytes": peak_resident(), **gpu_peaks()}


def reset() -> bool:
    """Begin the peaks anew; False where that of the process cannot be, which goes on then."""
    if _uses_gpu():
        torch.cuda.reset_peak_memory_stats()
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def if_host(seconds: Value) -> Value | None:
    """Seconds measured on the host; None where a GPU did the work behind its back."""
    return None if _uses_gpu() else seconds


def _uses_gpu() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
