"""Whether the scores of an untrained model are the stored ones, in standard errors.

The unit is the prompt. Images of one prompt are alike, so that a thousand images of ten prompts
say little more about a mean over prompts than a hundred do; a standard error over images would
claim otherwise. Noise alone, the prompts held fixed, is told beside it where it can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from results.diversity import pairwise_cosine_distance


class Verdict(StrEnum):
    """What is said of one score under one sampler."""

    AGREES = "agrees"
    DOUBTFUL = "doubtful"
    DIFFERS = "differs"
    NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Measured:
    """One score under one sampler."""

    by_prompt: tuple[float, ...]
    """The mean over a prompt's images, or the diversity of them."""
    noise: float
    """Standard error of the mean with the prompts held fixed, of the sampler's noise alone; NaN
    with too few images to tell."""

    @property
    def value(self) -> float:
        """Mean over prompts."""
        return math.fsum(self.by_prompt) / len(self.by_prompt)

    @property
    def standard_error(self) -> float:
        """Over prompts; see :func:`standard_error`."""
        return standard_error(self.by_prompt)


@dataclass(frozen=True)
class Difference:
    """Measured minus stored."""

    value: float
    standard_error: float
    freedom: float
    """Degrees of freedom of the standard error."""
    paired: bool
    """Whether prompt by prompt, what the prompts share left out."""
    noise: float = math.nan
    """Standard error with the prompts held fixed; NaN where it is not known."""

    @property
    def errors(self) -> float:
        """In standard errors; 0 for no difference, even of what never varies."""
        return _ratio(self.value, self.standard_error)

    @property
    def noise_errors(self) -> float:
        """In standard errors of the noise alone; NaN where it is not known."""
        return _ratio(self.value, self.noise)

    def false_alarm(self, threshold: float) -> float:
        """Probability that chance alone makes it so many standard errors or more, were the values
        of prompts normal."""
        return float(2 * stats.t.sf(threshold, self.freedom))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of independent values, ``sd / sqrt(n)`` with ``n - 1`` in sd; NaN for one."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def of_reward(values: ArrayLike) -> Measured:
    """Scores ``[prompts, images]``."""
    scores = np.asarray(values, dtype=np.float64)
    prompts, images = scores.shape
    noise = math.nan
    if images > 1:
        noise = math.sqrt(float((scores.var(axis=1, ddof=1) / images).sum())) / prompts
    return Measured(tuple(scores.mean(axis=1).tolist()), noise)


def of_diversity(features: ArrayLike) -> Measured:
    """Features ``[prompts, images, width]``: mean over pairs of a prompt's images of ``1 -
    cosine``, half their mean squared distance at unit length.

    Its noise is the jackknife's over images, of which it takes three.
    """
    vectors = np.asarray(features, dtype=np.float64)
    prompts, images = vectors.shape[:2]
    noise = math.nan
    if images > 2:
        without = np.array(
            [pairwise_cosine_distance(np.delete(vectors, i, axis=1)) for i in range(images)]
        )
        variance = (images - 1) * without.var(axis=0)
        noise = math.sqrt(float(variance.sum())) / prompts
    return Measured(tuple(pairwise_cosine_distance(vectors)), noise)


def paired(measured: Measured, stored: Sequence[float]) -> Difference:
    """From stored values of the same prompts, in their order: the standard error is that of the
    mean of the prompts' differences."""
    differences = [a - b for a, b in zip(measured.by_prompt, stored, strict=True)]
    return Difference(
        value=math.fsum(differences) / len(differences),
        standard_error=standard_error(differences),
        freedom=len(differences) - 1,
        paired=True,
    )


def unpaired(
    measured: Measured, value: float, error: float | None, prompts: int | None
) -> Difference:
    """From a stored mean with its standard error over so many prompts.

    The two are reckoned independent, ``sqrt(a^2 + b^2)``, with Welch's degrees of freedom. Where
    both are of the same prompts that is too wide, so that false alarms are rarer than stated.
    Without a stored standard error the stored mean counts as exact.
    """
    own = measured.standard_error
    other = error or 0.0
    variances: list[tuple[float, float]] = [(own**2, len(measured.by_prompt) - 1)]
    if other:
        variances.append((other**2, prompts - 1 if prompts else math.inf))
    total = sum(variance for variance, _ in variances)
    spread = sum(variance**2 / freedom for variance, freedom in variances)
    return Difference(
        value=measured.value - value,
        standard_error=math.sqrt(total),
        freedom=total**2 / spread if spread else math.inf,
        paired=False,
    )


def verdict(difference: Difference, agrees: float, differs: float) -> Verdict:
    """``agrees`` up to so many standard errors, ``differs`` above so many, else doubtful."""
    errors = abs(difference.errors)
    if errors <= agrees:
        return Verdict.AGREES
    return Verdict.DIFFERS if errors > differs else Verdict.DOUBTFUL


def _ratio(value: float, error: float) -> float:
    if error == 0:
        return 0.0 if value == 0 else math.copysign(math.inf, value)
    return value / error
