"""Alignment methods, one file each; a new file in this folder is a new method.

``registry()`` imports every module of the folder once, so that a class decorated with
``@register`` is known by its name without being listed anywhere.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from methods.interface import REGISTERED, Method, MethodConfig, Target, Task, register

__all__ = [
    "Method",
    "MethodConfig",
    "Target",
    "Task",
    "UnknownMethod",
    "get",
    "register",
    "registry",
]


class UnknownMethod(ValueError):
    """No method has the name asked for; the message gives the nearest one."""


def registry() -> dict[str, type[Method]]:
    """All methods by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(REGISTERED.items()))


def get(name: str) -> type[Method]:
    """The method called ``name``; raises ``UnknownMethod`` with the nearest name otherwise."""
    methods = registry()
    if name in methods:
        return methods[name]
    near = difflib.get_close_matches(name, methods, n=1, cutoff=0.0)
    raise UnknownMethod(
        f"unknown method {name!r}: did you mean {near[0]!r}? (methods: {', '.join(methods)})"
    )
