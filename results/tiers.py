"""Tiers of methods instead of ranks.

Differences between neighbours in a ranking are mostly noise. The first tier has the method of the
highest mean and all that are not separable from it; the next one the same of those left over.
Being in one tier is not being equal: too few seeds put everything into the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from results.paired import Comparison


def tiers(means: Mapping[str, float], comparisons: Iterable[Comparison]) -> dict[str, int]:
    """Method to its tier, from 1, in the order of ``means``.

    ``comparisons`` are a family of all pairs, so that picking the best from the data needs no
    further adjustment. Methods without a finite mean, or that no test compares with another, have
    no tier and are left out.
    """
    made = [each for each in comparisons if not math.isnan(each.p)]
    tested = {name for each in made for name in (each.method, each.reference)}
    below = {(each.method, each.reference) for each in made if each.sign < 0}
    below |= {(each.reference, each.method) for each in made if each.sign > 0}
    left = sorted(
        (name for name in means if name in tested and math.isfinite(means[name])),
        key=lambda name: -means[name],
    )
    found: dict[str, int] = {}
    tier = 0
    while left:
        tier += 1
        best, *others = left
        left = [name for name in others if (name, best) in below]
        found |= {name: tier for name in (best, *others) if name not in left}
    return {name: found[name] for name in means if name in found}
