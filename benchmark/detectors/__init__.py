"""What is looked for in the pictures of a finished run, because a reward may be gamed by it.

Writing, faces, unsafe content, and what an image classifier is at a loss with. Most are optional,
since neither their weights nor their packages come with the program. ``measure NAME RESULTS`` runs
one on the stored pictures, and says what it lacks. One file of this folder a detector, made known
by :func:`register`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from typing import ClassVar

from results.detections import Picture

_REGISTERED: dict[str, type[Detector]] = {}
_DECLARED = ("name", "version", "title", "sign_of", "network", "source")


class Detector:
    """Gives each picture a number that a gamed reward may raise.

    Subclasses declare the attributes below, load their network in ``__init__`` and implement
    :meth:`values`. The module imports the package that it needs inside functions alone, so that
    listing detectors costs nothing.
    """

    name: ClassVar[str]
    version: str
    """Changes whenever the answers do; with the release of the package or the weights."""
    title: ClassVar[str]
    """Few words for the head of a column."""
    unit: ClassVar[str] = "share of images"
    """Of the mean over pictures."""
    sign_of: ClassVar[str]
    """What a rise against the untrained model is a sign of."""
    network: ClassVar[str]
    source: ClassVar[str]
    """Where the network comes from, with its licence."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs."""
    extra: ClassVar[str] = ""
    """Extra of this project that installs them."""
    weights: ClassVar[str] = ""
    """Name in ``rewards/weights.toml``, where the package does not bring them."""

    @classmethod
    def unavailable(cls) -> str:
        """What it lacks on this machine, with the command that mends it; empty if nothing."""
        lacking = [name for name in cls.packages if importlib.util.find_spec(name) is None]
        if lacking:
            names = " and ".join(lacking)
            return f"needs {names}; `pip install -e '.[{cls.extra}]'` installs it"
        if not cls.weights:
            return ""
        from rewards import weights

        return weights.missing([cls.weights], cls.weights)

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        """One number a picture, uint8 ``[H, W, 3]``; of what is there or not, 1 or 0."""
        raise NotImplementedError


def register(detector: type[Detector]) -> type[Detector]:
    """Class decorator that makes a detector known under its ``name``.

    Raises ``TypeError`` if a declaration is missing, ``ValueError`` if the name is taken.
    """
    missing = [attribute for attribute in _DECLARED if not hasattr(detector, attribute)]
    if missing:
        raise TypeError(f"detector {detector.__qualname__} does not declare {', '.join(missing)}")
    if detector.name in _REGISTERED:
        raise ValueError(f"detector name {detector.name!r} is taken")
    _REGISTERED[detector.name] = detector
    return detector


def registry() -> dict[str, type[Detector]]:
    """All detectors by name, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTERED.items()))
