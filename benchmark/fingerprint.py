"""The source that a cell's numbers come from, as a hash.

A cell is computed by its method's module and the modules that one imports, by those of the rewards
that judge it, and by what trains and evaluates. They are found by reading the imports, not by
importing, so that no torch is needed to see whether a cell's code has changed since it ran.
Comments, layout and strings that nobody reads do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.protocol import digest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "diffusion", "methods", "results", "rewards")
"""Packages whose modules count; of other ones the versions are in the cell's environment."""
CELL = "benchmark.cell"
"""What trains and evaluates, whatever the method."""
BOOKKEEPING = frozenset(
    {
        "benchmark.capacity",
        "benchmark.energy",
        "benchmark.errors",
        "benchmark.jobs",
        "benchmark.memory",
        "benchmark.model_card",
        "benchmark.model_settings",
        "benchmark.models",
        "benchmark.progress",
        "benchmark.protocol",
        "benchmark.stopping",
        "benchmark.suite",
        "results.record_parts",
        "results.record_text",
        "results.records",
        "results.reproduction",
        "results.states",
        "results.store",
    }
)
"""Modules that read what is asked for, which is in a cell's config, and tell and write what came of
it: they decide none of its numbers. They and what only they import are left out."""


def fingerprint(roots: Iterable[str]) -> str:
    """First 16 digits of the SHA-256 of the source of modules and of all that they import.

    Raises ``ValueError`` for a module that is none of this program's packages.
    """
    return digest({name: module_digest(name) for name in closure(roots)})


def closure(roots: Iterable[str]) -> list[str]:
    """Names of the modules and of all modules of ``PACKAGES`` that they import, sorted."""
    waiting = list(roots)
    if missing := [name for name in waiting if _path(name) is None]:
        raise ValueError(f"{missing[0]} is no module of {', '.join(PACKAGES)}")
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and name not in BOOKKEEPING and _path(name) is not None:
            found.add(name)
            waiting += _imported(name)
    return sorted(found)


@cache
def module_digest(name: str) -> str:
    """Hash of a module's code."""
    parts: list[str] = []
    _write(_tree(name), parts)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _path(name: str) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((each for each in candidates if each.is_file()), None)


@cache
def _tree(name: str) -> ast.Module:
    path = _path(name)
    assert path is not None
    return ast.parse(path.read_bytes(), str(path))


@cache
def _imported(name: str) -> tuple[str, ...]:
    """What may be modules among the names that a module imports, in functions too, and the
    packages that hold them, which are run first."""
    path = _path(name)
    assert path is not None
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: dict[str, None] = {}
    for imported in _imports(_tree(name), package):
        parts = imported.split(".")
        found.update(dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1)))
    return tuple(found)


def _imports(tree: ast.Module, package: list[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _write(value: Any, parts: list[str]) -> None:
    """The syntax tree as text that is the same in every version of Python: ``ast.dump`` is not,
    which writes fields out that another version does not have."""
    if isinstance(value, ast.AST):
        parts.append(f"{type(value).__name__}(")
        for name, inner in ast.iter_fields(value):
            if inner is not None and inner != [] and name not in ("ctx", "kind", "type_comment"):
                parts.append(name)
                _write(inner, parts)
        parts.append(")")
    elif isinstance(value, list):
        parts.append("[")
        for inner in value:
            if not _is_text(inner):
                _write(inner, parts)
        parts.append("]")
    else:
        parts.append(repr(value))


def _is_text(node: Any) -> bool:
    """A string that stands alone, as documentation does."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return False
    return isinstance(node.value.value, str)
