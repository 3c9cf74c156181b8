"""What is looked for in the pictures of a finished run, because a reward may be gamed by it.

Writing, faces, objects, unsafe content, distortion, and what an image classifier is at a loss with.
Most are optional, since neither their weights nor their packages come with the program. ``measure
NAME RESULTS`` runs one on the stored pictures, and says what it lacks. One file of this folder a
detector, made known by :func:`register`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from results.detections import Picture

_REGISTERED: dict[str, type[Detector]] = {}
_WRONG = {
    "missing_keys": "is missing",
    "mismatched_keys": "has another shape",
    "unexpected_keys": "does not belong to it",
}
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


def load_whole(kind: Any, folder: Path, what: str) -> Any:
    """A network of class ``kind`` from a folder that has each of its tensors and no other.

    One that is missing would be drawn at random. Counters of batches, which no network reads once
    it is trained, may be there or not. Raises ``DamagedWeights``, which says that the folder is no
    ``what``.
    """
    import torch
    from safetensors import SafetensorError

    from rewards.scorer import DamagedWeights

    refused = f"{folder} is no {what}"
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            network, told = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are told of, with their names
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DamagedWeights(f"{refused}: {str(error).splitlines()[0]}") from error
    for wrong, words in _WRONG.items():
        for key in told[wrong]:
            tensor = key if isinstance(key, str) else key[0]
            if not tensor.endswith(".num_batches_tracked"):
                raise DamagedWeights(f"{refused}: {tensor} {words}")
    return network.float().eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers reports of tensors that do not fit."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
