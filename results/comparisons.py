"""The declared families of comparisons of a run: which p-values are adjusted together.

On each training reward there is a family for every measure, its reward and its diversity in each
encoder: all pairs of methods, controls included, at the picked evaluation. Two more compare each
method with best-of-n at equal budgets (``results.budgets``). What a family holds is fixed by the
suite, before any number is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from results.intervals import t_interval
from results.paired import Comparison, all_pairs
from results.scores import (
    Kind,
    cells_of,
    encoders,
    final_by_prompt,
    final_scores,
    methods,
    once,
)
from results.store import Run
from results.tiers import tiers


@dataclass(frozen=True)
class Family:
    """All pairs of methods that apply to a training reward, in one measure."""

    task: str
    kind: Kind
    name: str
    """Of the reward or the encoder."""
    comparisons: list[Comparison]
    tiers: dict[str, int]
    """Method to tier, 1 for those not separable from the best; see ``results.tiers``."""

    @property
    def made(self) -> int:
        """Comparisons that have a p-value: by how many the adjustment reckons."""
        return sum(not math.isnan(comparison.p) for comparison in self.comparisons)

    def against(self, reference: str) -> dict[str, Comparison]:
        """Method to its comparison with ``reference``."""
        return {each.method: each for each in self.comparisons if each.reference == reference}


@once
def families(run: Run, task: str) -> list[Family]:
    """That of the reward, then one for each encoder."""
    measures: list[tuple[Kind, str]] = [("reward", task)]
    measures += [("diversity", name) for name in encoders(run)]
    return [family(run, task, kind, name) for kind, name in measures]


def family(run: Run, task: str, kind: Kind, name: str) -> Family:
    """All pairs of methods on ``task``, controls first, each method against those before it."""
    applicable = [method for method in methods(run) if applies(run, method, task)]
    comparisons = all_pairs(
        {method: final_by_prompt(run, method, task, kind, name) for method in applicable},
        {method: len(cells_of(run, method, task)) for method in applicable},
    )
    means = {
        method: t_interval(final_scores(run, method, task, kind, name)).mean
        for method in applicable
    }
    return Family(task, kind, name, comparisons, tiers(means, comparisons))


@once
def applies(run: Run, method: str, task: str) -> bool:
    """Whether a method can be trained on a reward."""
    return any(cell.status.state != "not_applicable" for cell in cells_of(run, method, task))
