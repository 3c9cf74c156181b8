"""Joules of a GPU, from the counter in its driver.

Read through NVML by ``pynvml`` where that is installed (``pip install nvidia-ml-py``). The counter
is the whole GPU's: what else runs on it is counted too. It is exact over seconds, not below.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch


def counter(device: torch.device) -> Callable[[], float] | None:
    """A function giving the joules that ``device`` has used since its driver was loaded.

    ``None`` where there is no such counter: on a CPU, on GPUs older than Volta, on a part of a
    shared GPU, without ``pynvml``.
    """
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(_uuid(device).encode())
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, no driver, no counter: whatever it is, nothing is measured
        return None

    def joules() -> float:
        torch.cuda.synchronize(device)
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    return joules


def _uuid(device: torch.device) -> str:
    """NVML's name of the GPU; its numbers need not be those of CUDA."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
