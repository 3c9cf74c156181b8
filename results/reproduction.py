"""What runs a cell again: the command for it alone, and a key that says that it was the same."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Container

from results.records import CellConfig, RunRecord
from results.scores import NO_REWARD
from results.store import Cell

START = ["python", "-m", "benchmark", "run"]
REPLACED = (
    "--methods",
    "--rewards",
    "--seeds",
    "--out",
    "--workers",
    "--executor",
    "--address",
    "--cpus-per-cell",
    "--gpus-per-cell",
)
"""Options of ``run`` that say which cells, where to, how many at a time, and what runs them."""


def key(cell: Cell) -> str:
    """Key of a cell by its config; empty before it has started."""
    return "" if cell.config is None else config_key(cell.config)


def config_key(config: CellConfig) -> str:
    """First 16 digits of the SHA-256 of all that decides a cell's numbers.

    Two cells of one key were asked for the same, and computed by the same code: with the same
    versions on the same machine they have the same numbers. The order in which rewards score an
    evaluation decides none; of the model, its weights count and not where they lie.
    """
    content = config.model_dump(mode="json", exclude={"schema_version"})
    content["rewards"] = sorted(content["rewards"])
    if config.weights:
        del content["model"]["name"]
    for later in ("weights", "source"):  # than cells that are known by a key without it
        if not content[later]:
            del content[later]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def command(cell: Cell, record: RunRecord) -> str:
    """The command that runs the cell again, with few others: that of its run, cut down to it.

    The command of the run as it is where it is none of ``benchmark run``.
    """
    typed = cell.environment.command if cell.environment else record.command
    try:
        arguments = shlex.split(typed)
    except ValueError:
        return typed
    if arguments[: len(START)] != START:
        return typed
    others = {name for name in record.methods if name != cell.method}
    rewards = [name for name in (cell.reward,) if name != NO_REWARD]
    which = ["--methods", cell.method, "--seeds", str(cell.seed)]
    which += ["--rewards", *rewards] if rewards else _given(arguments, "--rewards")
    return shlex.join([*START, *_kept(arguments[len(START) :], others), *which])


def _kept(arguments: list[str], others: Container[str]) -> list[str]:
    kept = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name == "--dry-run":
            continue
        if not name.startswith("--"):
            kept.append(argument)
            continue
        value = value if equals else next(left, "")
        if name in REPLACED or name == "--set" and not _concerns(value, others):
            continue
        kept += [name, value]
    return kept


def _concerns(change: str, others: Container[str]) -> bool:
    """Whether a ``--set`` decides anything of a cell whose run had the methods ``others`` too."""
    path = change.partition("=")[0].split(".")
    if path[0] == "methods" and len(path) > 1:
        path = path[1:]
    return path[0] not in others and path[0] not in ("rewards", "seeds", "workers")


def _given(arguments: list[str], option: str) -> list[str]:
    """The option with its value as it was typed last, if it was."""
    found: list[str] = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            found = [option, value if equals else "".join(arguments[i + 1 : i + 2])]
    return found
