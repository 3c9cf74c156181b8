"""Costs of a run: what was measured, phases of cells old and new."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion import ledger
from results import analysis, costs, store
from results.curves import learning_curves
from results.records import Counts, EvaluationRecord, StatusRecord
from results.store import Run
from tests.results.synthetic import Synthetic


def test_costs_are_all_that_the_ledger_counts() -> None:
    memory = {"peak_memory", "peak_gpu_memory"}
    assert set(costs.COSTS) == {*Counts.model_fields, "training_seconds", "joules", *memory}
    assert set(Counts.model_fields) == set(ledger.COUNTERS)
    assert costs.PHASES == ledger.PHASES


def test_curves_carry_every_cost(run: Run) -> None:
    curves = learning_curves(run, "style")
    last = run.cells["dag--style--s0"].evaluations[-1]
    rows = curves[(curves["method"] == "dag") & (curves["seed"] == 0)]
    for name in Counts.model_fields:
        assert rows[name].max() == getattr(last.counts, name)
    assert rows["joules"].iloc[-1] != rows["joules"].iloc[-1]  # not measured: NaN, and not 0


def test_only_what_was_measured_is_offered(run: Run) -> None:
    offered = list(costs.measured(run))
    assert offered[:3] == ["images", "training_seconds", "reward_calls"]
    assert "unet_backward" in offered and "optimizer_steps" in offered
    for name in ("vae_encode", "joules", "peak_memory", "peak_gpu_memory"):
        assert name not in offered


@pytest.mark.parametrize(
    ("cost", "field", "unit"),
    [
        ("joules", "joules", 1),
        ("peak_memory", "peak_memory_bytes", 10**9),
        ("peak_gpu_memory", "peak_gpu_allocated_bytes", 10**9),
    ],
)
def test_what_is_not_always_measured_is_a_cost_where_it_was(
    tmp_path: Path, cost: str, field: str, unit: int
) -> None:
    folder = Synthetic(tmp_path / "run").write()
    path = store.cell_folder(folder, "dag--style--s0") / "evaluations.jsonl"
    found = store.read_jsonl(path, EvaluationRecord)
    changed = [each.model_copy(update={field: n * unit}) for n, each in enumerate(found, 1)]
    store.write_jsonl(path, changed)
    run = store.read_run(folder)
    assert cost in costs.measured(run)
    curves = learning_curves(run, "style")
    rows = curves[(curves["method"] == "dag") & (curves["name"] == "style")]
    assert list(rows[cost][rows["seed"] == 0]) == [0, 1, 2, 3, 4]
    assert np.isnan(rows[cost][rows["seed"] == 1].iloc[-1])


def test_curves_can_be_drawn_over_the_distance_from_base(run: Run) -> None:
    assert costs.DISTANCE in costs.axes(run) and costs.DISTANCE not in costs.measured(run)
    curves = learning_curves(run, "style", [("reward", "style")])
    rows = curves[(curves["method"] == "dag") & (curves["seed"] == 1)]
    # The synthetic path KL is 3 nats at the end, and 0.1 more for each seed.
    shares = np.linspace(0.25, 1, 4)
    assert list(rows[costs.DISTANCE]) == pytest.approx([0, *np.sqrt(3 * shares + 0.1)])


def test_without_path_kl_there_is_no_distance(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path / "run").write()
    for path in folder.glob("cells/*/evaluations.jsonl"):
        records = store.read_jsonl(path, EvaluationRecord)
        store.write_jsonl(path, [each.model_copy(update={"path_kl": []}) for each in records])
    run = store.read_run(folder)
    assert costs.axes(run) == costs.measured(run)
    last = run.cells["dag--style--s0"].evaluations[-1]
    assert math.isnan(costs.of(last)[costs.DISTANCE])


def test_phases_are_shown_in_order_and_older_names_too() -> None:
    assert costs.in_order(["evaluation", "setup", "rollout", "reward", "training", "saving"]) == [
        *("setup", "reward", "rollout", "training", "evaluation", "saving")
    ]
    assert costs.in_order(["backward", "rollout", "sample"]) == ["sample", "backward", "rollout"]


def test_a_run_of_older_phases_is_read(run: Run) -> None:
    assert "rollout" in analysis.phases(run)
    table = analysis.throughput(run)
    row = table[(table["method"] == "dag") & (table["task"] == "style")].iloc[0]
    assert row["seconds: rollout"] > 0
    assert math.isnan(row["network_share"]) and math.isnan(row["joules"])


@pytest.mark.parametrize(
    ("networks", "expected"), [({"unet": 3.0, "vae": 1.0}, 0.5), ({}, 0.0), (None, math.nan)]
)
def test_share_of_networks(networks: dict[str, float] | None, expected: float) -> None:
    assert costs.share(networks, {"sample": 5.0, "loss": 3.0}) == pytest.approx(
        expected, nan_ok=True
    )
    assert math.isnan(costs.share(networks, {}))


def test_columns_of_a_group(run: Run) -> None:
    cell = run.cells["dag--style--s0"]
    status: dict[str, Any] = {
        "network_seconds": {"unet": 6.0},
        "training_seconds_by_phase": {"loss": 8.0},
        "joules": 100.0,
        "peak_gpu_allocated_bytes": 5,
        "peak_gpu_reserved_bytes": 7,
    }

    def changed(**update: Any) -> store.Cell:
        fields = {**cell.__dict__, "status": StatusRecord(state="done", **{**status, **update})}
        return store.Cell(**fields)

    assert costs.columns([changed(), changed(joules=200.0, peak_gpu_reserved_bytes=9)]) == {
        "network_share": 0.75,
        "joules": 150.0,
        "peak_gpu_allocated_bytes": 5,
        "peak_gpu_reserved_bytes": 9,
    }
