"""What can be measured from stored features: diversity, and drift from the base model.

A metric is a class in a file of this folder, made known by :func:`register`. The folder is scanned
when somebody first asks, so a new metric is one new file and nothing else changes, and it is
measured on finished runs without a new image.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from results.metrics.interface import REGISTERED, Measurement, Metric, Refused, register

__all__ = ["Measurement", "Metric", "Refused", "UnknownMetric", "load", "register", "registry"]


class UnknownMetric(ValueError):
    """No metric has that name; the message names the nearest one and lists all."""


def registry() -> dict[str, type[Metric]]:
    """All metrics by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(REGISTERED.items()))


def load(name: str) -> Metric:
    """The metric of that name; raises :class:`UnknownMetric`."""
    known = registry()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UnknownMetric(
            f"unknown metric {name!r}; did you mean {near[0]!r}? (known: {', '.join(known)})"
        )
    return known[name]()
