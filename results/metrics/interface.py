"""The contract that every metric keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Features = NDArray[np.float64]
"""``[prompts, images, width]``: one vector an image, in one encoder, as the network gave it."""

Direction = Literal["higher", "lower", "neither"]

REGISTERED: dict[str, type[Metric]] = {}
_DECLARED = ("name", "version", "title", "unit", "direction", "needs_base", "minimum", "source")


class Refused(ValueError):
    """The features do not allow the number; the message says what is missing and what does."""


@dataclass(frozen=True)
class Measurement:
    """A value with what it depends on beside the features."""

    value: float
    """NaN where a feature vector is not finite, or has no direction where one is needed."""
    conditions: dict[str, float] = field(default_factory=dict)
    """Settings without which the value means nothing, such as the number of images a prompt.
    Values under different conditions are never put together."""
    details: dict[str, float] = field(default_factory=dict)
    """Numbers that go with the value, such as its standard error."""
    per_prompt: list[float] = field(default_factory=list)
    """Values of which ``value`` is the mean, where there is one a prompt."""


class Metric:
    """A number computed from the features of one evaluation in one encoder.

    Subclasses declare the attributes below and implement :meth:`compute`; pure NumPy, without
    randomness that is not seeded by a constant. Metrics are called by :meth:`measure`, which
    checks what they are given.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    """Changes whenever the numbers do."""
    title: ClassVar[str]
    """Few words for the head of a column."""
    unit: ClassVar[str]
    direction: ClassVar[Direction]
    """Which way is better, ``neither`` where that depends on what is wanted."""
    needs_base: ClassVar[bool]
    """Whether the untrained model's features of the same prompts and seed are compared with."""
    minimum: ClassVar[int]
    """Fewest images, all prompts together, from which the number is computed."""
    minimum_prompts: ClassVar[int] = 1
    minimum_images: ClassVar[int] = 1
    """Fewest images of each prompt."""
    source: ClassVar[str]
    """Where the definition comes from."""

    def compute(self, features: Features, base: Features | None) -> Measurement:
        """The number, of features that :meth:`measure` has checked; may raise ``Refused``.

        ``base`` is of the same shape and not None if ``needs_base``.
        """
        raise NotImplementedError

    def measure(self, features: ArrayLike, base: ArrayLike | None = None) -> Measurement:
        """The number; raises :class:`Refused` where the features do not allow it.

        ``features`` and ``base`` are ``[prompts, images, width]``. Images pooled over prompts
        (two dimensions) are refused: what looks diverse then may be one picture a prompt.
        """
        checked = self._checked(features, "features")
        if not self.needs_base:
            return self.compute(checked, None)
        if base is None:
            raise Refused(f"{self.name} needs the features of base, the untrained model")
        reference = self._checked(base, "features of base")
        if reference.shape != checked.shape:
            raise Refused(
                f"{self.name} compares the same prompts and images: {list(checked.shape)} against "
                f"{list(reference.shape)} of base"
            )
        if not (np.isfinite(checked).all() and np.isfinite(reference).all()):
            return Measurement(np.nan)
        return self.compute(checked, reference)

    def _checked(self, features: ArrayLike, what: str) -> Features:
        array = np.asarray(features, dtype=np.float64)
        if array.ndim != 3 or 0 in array.shape:
            raise Refused(
                f"{self.name} needs {what} [prompts, images, width], each prompt by itself, "
                f"not {list(array.shape)}"
            )
        prompts, images, _ = array.shape
        for count, least, noun in (
            (prompts * images, self.minimum, "images"),
            (prompts, self.minimum_prompts, "prompts"),
            (images, self.minimum_images, "images of each prompt"),
        ):
            if count < least:
                raise Refused(f"{self.name} needs at least {least:,} {noun}, not {count:,}")
        return array


def register(metric: type[Metric]) -> type[Metric]:
    """Class decorator that makes a metric known under its ``name``.

    Raises ``TypeError`` if a declaration is missing, ``ValueError`` if the name is taken.
    """
    missing = [attribute for attribute in _DECLARED if not hasattr(metric, attribute)]
    if missing:
        raise TypeError(f"metric {metric.__qualname__} does not declare {', '.join(missing)}")
    if metric.name in REGISTERED:
        taken_by = REGISTERED[metric.name].__module__
        raise ValueError(f"metric name {metric.name!r} is taken by {taken_by}")
    REGISTERED[metric.name] = metric
    return metric


def require_comparable(name: str, measurements: Iterable[dict[str, float]]) -> None:
    """Raise :class:`Refused` unless all conditions are the same.

    Vendi scores of 4 and of 16 images, for one, differ although nothing else does.
    """
    conditions = list(measurements)
    for other in conditions[1:]:
        if other != conditions[0]:
            raise Refused(
                f"{name} was measured under {_words(conditions[0])} and under {_words(other)}: "
                "the values do not compare"
            )


def _words(conditions: dict[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in conditions.items())


def flat(features: Features) -> NDArray[np.float64]:
    """``[prompts * images, width]``, for metrics that compare whole samples."""
    return features.reshape(-1, features.shape[-1])


def unit_vectors(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors of length 1; NaN where there is no direction."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return features / np.linalg.norm(features, axis=-1, keepdims=True)
