"""Two processes that train together are one process that trains alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

import methods
from benchmark.conformance.trial import Trial
from benchmark.conformance.watch import Watch
from methods import processes, replay
from tests.how_we_know import Record, relative_distance

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpo": ("ddpo", {}),
    "ddpo-sf": ("ddpo-sf", {"advantage": "per_prompt_tracker", "tracker_min_count": 3}),
    "dag": ("dag", {"reward_unit": "initial_std"}),
    "dag, fresh rewards": ("dag", {"fresh_rewards": True, "flow_levels": "learned"}),
    "dag, shared start": ("dag", {"initial_noise": "shared"}),
    "dag-kl": ("dag-kl", {}),
    "alignprop": ("alignprop", {"truncation": "random-per-step"}),
    # Three trajectories in three updates: one process has nothing to do in each.
    "ddpo, empty shares": (
        "ddpo",
        {"prompts_per_round": 1, "images_per_prompt": 3, "updates_per_round": 3},
    ),
}


def train(name: str) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights after two rounds and the first gradient, by name; metrics of the first round."""
    kind, options = CASES[name]
    method = Trial(methods.get(kind), options=options).start()
    with Watch(method.policy) as watch:
        metrics = method.step()
        method.step()
    gradients = {f"gradient {index}": g for index, g in enumerate(watch.gradients[0])}
    return {**method.policy.state_dict(), **gradients}, metrics


def work(rank: int, folder: Path) -> None:
    """One of two processes: every case, results to files."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    for index, name in enumerate(CASES):
        tensors, metrics = train(name)
        save_file(tensors, folder / f"{index}-{rank}.safetensors")
        (folder / f"{index}-{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(folder,), nprocs=2)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, together: Path, evidence: Record) -> None:
    index = list(CASES).index(name)
    first, second = (load_file(together / f"{index}-{rank}.safetensors") for rank in (0, 1))
    evidence(
        "two processes: equal weights in both",
        sum(not torch.equal(first[key], second[key]) for key in first),
        0,
        "tensors that differ after two rounds over gloo, each method",
    )
    reports = [json.loads((together / f"{index}-{rank}.json").read_text()) for rank in (0, 1)]
    assert reports[0] == reports[1]
    if not methods.get(CASES[name][0]).micro_batch_invariant:
        return
    alone, metrics = train(name)
    for key in alone:
        if key.startswith("gradient"):
            evidence(
                "two processes: the gradient of one",
                relative_distance(first[key], alone[key]),
                1e-4,
                "first gradient over gloo and in one process, each method; relative",
            )
    assert reports[0] == pytest.approx(metrics, rel=1e-3, abs=1e-5)


def test_without_a_group_there_is_one_process() -> None:
    assert processes.count() == 1
    values = torch.arange(5)
    assert processes.own(values) is values and processes.gather(values, 5) is values
    assert processes.share(5) == slice(0, 5)
    assert processes.total(2.0) == processes.largest(2.0) == 2.0


def test_shares_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transition is visited by one process, in micro-batches of at most the size asked for."""
    monkeypatch.setattr(processes, "count", lambda: 3)
    visited: list[tuple[int, int]] = []
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        source = torch.Generator().manual_seed(0)
        orders = replay.update_orders(source, 7, 5, updates=2, micro_batch_size=2)
        assert [order.transitions for order in orders] == [20, 15]
        for order in orders:
            for trajectory, step in order.batches:
                assert 1 <= len(step) <= 2
                visited += zip(trajectory.tolist(), step.tolist(), strict=True)
    assert sorted(visited) == [(i, k) for i in range(7) for k in range(5)]
    with pytest.raises(ValueError, match="3 processes, but only 2 trajectories"):
        processes.share(2)
