"""What the regression gate looks at in a results folder: groups of cells, and how they ended.

Of each method on each reward: the reward trained on, the diversity in each encoder, the distance to
the declared target where the model is one in closed form, and the work that training took, which is
counted and has no noise.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from results import gate, golden
from results.anchors import anchors
from results.baseline import Direction, Group, Sample, Snapshot
from results.gate import Observed
from results.scores import BASE, NO_REWARD, Kind, encoders, is_done, measure, tasks
from results.store import Cell, Run

NOT_ENDED = {"pending", "running", "stale", "not_applicable"}
"""States of cells that are neither done nor have failed."""


def groups(run: Run, margin: float) -> dict[str, Observed]:
    """Every method on every reward, ``dag--style``; margins are the share ``margin`` of a scale.

    The scale of a reward is the distance between its anchors, ``results.anchors``, that of a
    diversity what the untrained model has, that of a total variation 1. Work has no margin.
    """
    cells: dict[str, list[Cell]] = {}
    for cell in run.cells.values():
        cells.setdefault(f"{cell.method}--{cell.reward}", []).append(cell)
    return {name: _observed(run, of_group, margin) for name, of_group in cells.items()}


def snapshot(run: Run, observed: dict[str, Observed]) -> Snapshot:
    """The numbers of a run as a baseline keeps them."""
    environment = next((c.environment for c in run.cells.values() if c.environment), None)
    return Snapshot(
        environment=environment,
        groups={name: each.group for name, each in observed.items() if each.group},
        golden=golden.record(run),
    )


def problems(observed: dict[str, Observed]) -> list[str]:
    """Cells that failed or have not ended, those that do not apply left out."""
    return [
        line
        for each in observed.values()
        for line in (*each.failed, *each.unfinished)
        if not line.endswith("does not apply")
    ]


def _observed(run: Run, cells: list[Cell], margin: float) -> Observed:
    done = [cell for cell in cells if is_done(cell)]
    rest = [cell for cell in cells if not is_done(cell)]
    failed = [cell for cell in rest if cell.status.state not in NOT_ENDED]
    return Observed(
        group=_group(run, done, margin) if done else None,
        failed=tuple(
            f"{cell.cell_id} {cell.status.state}: {cell.status.reason or 'no evaluation'}"
            for cell in failed
        ),
        unfinished=tuple(
            f"{cell.cell_id} "
            + ("does not apply" if cell.status.state == "not_applicable" else cell.status.state)
            for cell in rest
            if cell not in failed
        ),
    )


def _group(run: Run, cells: list[Cell], margin: float) -> Group:
    first = cells[0]
    return Group(
        hardware=" and ".join(sorted({golden.hardware(cell) for cell in cells})),
        conditions=_conditions(first),
        settings=_flat(first.config.method_config if first.config else {}),
        samples={name: sample for name, sample in _samples(run, cells, margin) if sample.values},
    )


def _conditions(cell: Cell) -> dict[str, str]:
    if cell.config is None:
        return {}
    config = cell.config
    prompts = json.dumps(config.train_prompts, ensure_ascii=False).encode()
    found = {
        "protocol": config.protocol,
        "budget.images": str(config.budget_images),
        "prompts.train": hashlib.sha256(prompts).hexdigest()[:16],
    }
    model = {name: value for name, value in config.model.items() if name != "device"}
    return found | {f"model.{name}": value for name, value in _flat(model).items()}


def _flat(values: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def _samples(run: Run, cells: list[Cell], margin: float) -> Iterator[tuple[str, Sample]]:
    first = cells[0]
    rewards = tasks(run) if first.reward == NO_REWARD else [first.reward]
    for name in rewards:
        yield _scores(run, cells, "reward", name, margin)
    for name in encoders(run):
        yield _scores(run, cells, "diversity", name, margin)
    distances = {
        f"s{cell.seed}": cell.picked.density.total_variation
        for cell in cells
        if cell.picked.density is not None and cell.picked.density.total_variation is not None
    }
    yield "total variation", _sample("lower", "total variation", margin, distances)
    if first.method != BASE:
        for name, count in (("UNet samples", _unet), ("reward calls", _reward_calls)):
            values = {f"s{cell.seed}": float(count(cell)) for cell in cells}
            yield name, _sample("lower", name, 0.0, values)


def _unet(cell: Cell) -> int:
    return cell.status.counts.unet_forward + cell.status.counts.unet_backward


def _reward_calls(cell: Cell) -> int:
    return cell.status.counts.reward_calls


def _scores(
    run: Run, cells: list[Cell], kind: Kind, name: str, margin: float
) -> tuple[str, Sample]:
    fixed = anchors(run, name, kind, name)
    scale = fixed.one - fixed.zero
    values = {f"s{cell.seed}": measure(cell.picked, kind, name) for cell in cells}
    kept = {seed: value for seed, value in values.items() if value is not None}
    unit = "cosine distance" if kind == "diversity" else _unit(run, name)
    absolute = margin * scale if math.isfinite(scale) and scale > 0 else 0.0
    return f"{kind} {name}", _sample("higher", unit, absolute, kept)


def _unit(run: Run, reward: str) -> str:
    info = run.record.rewards.get(reward)
    return info.unit if info else ""


def _sample(direction: Direction, unit: str, margin: float, values: dict[str, float]) -> Sample:
    return Sample(direction=direction, unit=unit, margin=margin, values=values)


def golden_comparisons(run: Run, baseline: Snapshot) -> list[gate.Comparison]:
    """Trajectories of the cells that both have; see ``results.golden``."""
    return golden.compare(baseline.golden, run) if baseline.golden else []
