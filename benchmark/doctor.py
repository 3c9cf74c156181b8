"""``benchmark doctor``: what this machine can run, and the command that enables what it cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from rich.table import Table
from rich.text import Text

import methods
import rewards
from benchmark import (
    capacity,
    detectors,
    encoders,
    environment,
    models,
    probe,
    resolution,
    suite,
)
from benchmark.errors import UsageError
from benchmark.terminal import print_table
from results import metrics, numbers
from rewards import scorer

State = Literal["ok", "optional", "missing"]
EXTRAS = {
    "figures": ("matplotlib", "seaborn"),
    "lpips": ("torchmetrics",),
    "trl": ("trl",),
}
"""Extras of this project that no method or encoder asks for by itself, with their packages."""
RAY_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    section: str
    name: str
    state: State
    """``missing`` is what the suite asked for needs; ``optional`` is missing and not needed."""
    detail: str
    command: str = ""
    """What enables it."""


def examine(name: str, timed: bool) -> list[Finding]:
    """All findings; those of ``suite`` and ``time`` are about the suite ``name``.

    Raises ``UsageError`` for a suite that there is not.
    """
    values, origins = suite.read(name)
    checked = suite.check(values, origins)
    findings = [*_machine(), *_weights(), *_methods(), *_rewards(), *_encoders()]
    findings += [*_metrics(), *_detectors(), *_packages(), _ray()]
    try:
        resolved = resolution.resolve(checked, origins)
    except UsageError as error:
        return [*findings, Finding("suite", name, "missing", str(error))]
    needed = [each for each in findings if each.name in checked.evaluation.encoders]
    findings = [
        dataclasses.replace(each, state="missing")
        if each in needed and each.section == "encoder" and each.state == "optional"
        else each
        for each in findings
    ]
    cells = sum(not cell.not_applicable for cell in resolved.cells())
    findings.append(Finding("suite", name, "ok", f"{cells} cells to run"))
    findings += _processes(checked)
    return [*findings, _time(resolved)] if timed else findings


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(os.getcwd())
    where = environment.describe("", 1)
    yield Finding("machine", "system", "ok", f"{where.platform}, Python {where.python}")
    yield Finding("machine", "processor", "ok", f"{where.cpu}, {environment.cores()} cores to use")
    yield Finding(
        "machine",
        "memory",
        "ok",
        f"{numbers.data_size(memory.available)} free of {numbers.data_size(memory.total)}",
    )
    yield Finding(
        "machine",
        "disk",
        "ok",
        f"{numbers.data_size(disk.free)} free of {numbers.data_size(disk.total)} here",
    )
    yield Finding("machine", "torch", "ok", torch.__version__)
    yield from _gpus()


def _gpus() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding("machine", "GPU", "optional", "none that torch can use; cells compute on CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        detail = (
            f"{torch.cuda.get_device_name(index)}, {numbers.data_size(free)} free of "
            f"{numbers.data_size(total)}"
        )
        yield Finding("machine", f"GPU {index}", "ok", detail)
    if importlib.util.find_spec("pynvml") is None:
        detail = "joules are not measured"
        yield Finding("machine", "GPU energy", "optional", detail, _pip("nvidia-ml-py"))


def _weights() -> Iterator[Finding]:
    """Files of weights that come with the program, with their SHA-256."""
    for name, folder in models.NAMED.items():
        if missing := models.missing_files(folder):
            yield Finding("weights", name, "missing", f"{folder / missing[0]} is not there", CLONE)
            continue
        for part in models.WEIGHTED:
            for path in sorted((folder / part).glob("*.safetensors")):
                yield _file(f"{name} {part}", path)
    yield _file(models.MIXTURE, models.MIXTURE_WEIGHTS)
    for file in ("open_clip_model.safetensors", "style_head.safetensors"):
        yield _file(f"emoji scorer {file.partition('.')[0]}", scorer.FOLDER / file)


CLONE = "git checkout -- ."
"""Brings back files that come with the program."""


def _file(name: str, path: Path) -> Finding:
    if not path.is_file():
        return Finding("weights", name, "missing", f"{path} is not there", CLONE)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Finding("weights", name, "ok", f"sha256 {digest}")


def _methods() -> Iterator[Finding]:
    for name, kind in methods.registry().items():
        reason = kind.unavailable()
        command = _pip(f"-e '.[{kind.extra}]'") if reason and kind.extra else ""
        yield Finding("method", name, "optional" if reason else "ok", reason or kind.title, command)


def _rewards() -> Iterator[Finding]:
    for name, kind in rewards.registry().items():
        try:
            reward = rewards.load(name)
        except (OSError, ValueError) as error:
            yield Finding("reward", name, "optional", _line(error), CLONE)
        else:
            gradient = "gradient" if kind.differentiable else "no gradient"
            detail = f"of {kind.scores}s, {gradient}, version {reward.version}"
            yield Finding("reward", name, "ok", detail)


def _encoders() -> Iterator[Finding]:
    for name, source in encoders.registry().items():
        try:
            yield Finding("encoder", name, "ok", f"of {source.input}s, version {source.version()}")
        except (OSError, ImportError) as error:
            text = _line(error)
            # The message has the command between backticks.
            reason, _, rest = text.partition("; `")
            yield Finding("encoder", name, "optional", reason, rest.partition("` ")[0])


def _metrics() -> Iterator[Finding]:
    for name, kind in metrics.registry().items():
        detail = f"from {kind.minimum} images on, {kind.direction} is better"
        yield Finding("metric", name, "ok", detail.replace("neither is better", "no direction"))


def _detectors() -> Iterator[Finding]:
    for name, kind in detectors.registry().items():
        reason, _, rest = kind.unavailable().partition("; `")
        detail = reason or f"{kind.title.lower()} of stored pictures, by {kind.network}"
        state: State = "optional" if reason else "ok"
        yield Finding("metric", name, state, detail, rest.partition("` ")[0])


def _packages() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        command = _pip(f"-e '.[{extra}]'") if missing else ""
        detail = f"lacks {', '.join(missing)}" if missing else ", ".join(packages)
        yield Finding("extra", extra, "optional" if missing else "ok", detail, command)


def _ray() -> Finding:
    """Whether there is a Ray cluster to connect to; asked of Ray's own command, with a limit."""
    if importlib.util.find_spec("ray") is None:
        return Finding("extra", "ray", "optional", "not installed", _pip("ray"))
    # What `run --executor ray --address auto` would join.
    address = os.environ.get("RAY_ADDRESS", "auto")
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=RAY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        reachable = False
    else:
        reachable = done.returncode == 0
    if reachable:
        return Finding("extra", "ray", "ok", f"a cluster answers at {address}")
    return Finding("extra", "ray", "optional", f"no cluster at {address}", "ray start --head")


def _processes(checked: suite.Suite) -> Iterator[Finding]:
    """Whether there is room for the processes of a cell, where there are several."""
    model = checked.model
    if model.processes == 1:
        return
    if shortage := capacity.shortage(model):
        yield Finding("suite", "model.processes", "missing", shortage)
        return
    cells = len(checked.methods) * len(checked.rewards) * len(checked.seeds)
    threads = model.processes * capacity.threads(checked, cells)
    cores = environment.cores()
    detail = f"{model.processes} processes train a cell, "
    if capacity.on_gpu(model):
        detail += "each on a GPU of its own"
    else:
        detail += f"{threads} threads on {cores} cores"
        if threads > cores:
            detail += ": they wait for each other, and one is as fast"
    yield Finding("suite", "model.processes", "ok", detail)


def _time(resolved: resolution.ResolvedSuite) -> Finding:
    try:
        estimate = probe.estimate(resolved)
    except ValueError as error:
        return Finding("time", resolved.suite.name, "ok", str(error))
    costs = estimate.costs
    detail = (
        f"about {numbers.duration(estimate.seconds)}: {len(estimate.cells)} cells, "
        f"{estimate.workers} at a time, the longest "
        f"{numbers.duration(max(estimate.cells.values()))}; UNet "
        f"{1000 * costs.forward:.2f} ms a sample, {1000 * costs.gradient:.2f} ms with gradient, "
        f"VAE {1000 * costs.decode:.2f} ms an image"
    )
    load, cores = psutil.getloadavg()[0], environment.cores()
    if load > cores:
        detail += f"; measured while busy (load {load:.1f} on {cores} cores), less at rest"
    return Finding("time", resolved.suite.name, "ok", detail)


def _pip(what: str) -> str:
    return f"pip install {what}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def show(findings: list[Finding], as_json: bool) -> int:
    """Print the findings; the exit code: 0 if the suite can run here, 4 if something is missing."""
    missing = [each for each in findings if each.state == "missing"]
    if as_json:
        content: dict[str, Any] = {
            "can_run": not missing,
            "python": platform.python_version(),
            "findings": [dataclasses.asdict(each) for each in findings],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 4 if missing else 0
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "", "detail", "enable it with"):
        table.add_column(heading, overflow="fold")
    section = ""
    for each in findings:
        first = each.section if each.section != section else ""
        section = each.section
        cells = (first, each.name, each.state, each.detail, each.command)
        table.add_row(*map(Text, cells), end_section=False)
    print_table(table)
    for each in missing:
        print(f"missing: {each.name}: {each.detail}")
    return 4 if missing else 0
