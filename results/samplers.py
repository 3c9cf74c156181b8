"""The picked checkpoints under every sampler of the protocol, from the same initial noise.

The first noise eta is that of all reported numbers; here the others stand beside it. Best-of-n has
the first alone: it chooses among samples, and would have to draw all its candidates again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from results.intervals import Interval, paired_difference, t_interval
from results.records import EvaluationRecord, SamplerRecord
from results.scores import BASE, Scores, done, done_cells, encoders, methods, once
from results.store import Cell, Run


@dataclass(frozen=True)
class SamplerRow:
    """One method trained on one reward, with one noise of the sampler."""

    method: str
    eta: float
    reward: Interval
    """Over seeds."""
    to_first: Interval
    """Minus the reward with the first eta, paired by seed; no seeds for the first itself."""
    gain: Interval
    """Minus the reward of ``base`` with the same eta, paired by seed; no seeds for ``base``."""
    diversity: dict[str, Interval]
    """By encoder."""
    bad_images: dict[str, int]
    """By kind, over all seeds; kinds without any left out."""


@once
def etas(run: Run) -> list[float]:
    """Noises that the run was evaluated with, that of the reported numbers first."""
    found = [eta for cell in done(run) if cell.config for eta in cell.config.etas]
    return list(dict.fromkeys(found))


def sampler_table(run: Run, task: str) -> list[SamplerRow]:
    """A row for each method and eta that it was evaluated with; empty with a single eta."""
    if len(etas(run)) < 2:
        return []
    rows = [_row(run, method, task, eta) for method in methods(run) for eta in etas(run)]
    return [row for row in rows if row is not None]


def evaluation_at(cell: Cell, eta: float) -> EvaluationRecord | SamplerRecord | None:
    """The picked checkpoint of a cell with one eta; None where it was not drawn."""
    if cell.config and cell.config.etas and cell.config.etas[0] == eta:
        return cell.picked
    return next((record for record in cell.samplers if record.eta == eta), None)


def _row(run: Run, method: str, task: str, eta: float) -> SamplerRow | None:
    found = _by_seed(run, method, task, eta)
    if not found:
        return None
    own = _rewards(found, task)
    first = _rewards(_by_seed(run, method, task, etas(run)[0]), task)
    base = _rewards(_by_seed(run, BASE, task, eta), task)
    bad: Counter[str] = Counter()
    for record in found.values():
        bad.update(record.bad_images)
    return SamplerRow(
        method=method,
        eta=eta,
        reward=t_interval(own),
        to_first=paired_difference(own, first if eta != etas(run)[0] else {}),
        gain=paired_difference(own, base if method != BASE else {}),
        diversity={
            name: t_interval(
                {
                    seed: float(np.mean(record.diversity[name]))
                    for seed, record in found.items()
                    if name in record.diversity
                }
            )
            for name in encoders(run)
        },
        bad_images={kind: count for kind, count in bad.items() if count},
    )


def _by_seed(
    run: Run, method: str, task: str, eta: float
) -> dict[int, EvaluationRecord | SamplerRecord]:
    found = {cell.seed: evaluation_at(cell, eta) for cell in done_cells(run, method, task)}
    return {seed: record for seed, record in found.items() if record is not None}


def _rewards(found: dict[int, EvaluationRecord | SamplerRecord], task: str) -> Scores:
    return {
        seed: float(np.mean(record.rewards[task]))
        for seed, record in found.items()
        if task in record.rewards
    }
