"""Processes of a cell, two of them over gloo: what they tell each other, and how long they wait."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmark import capacity, environment, suite
from benchmark.jobs import Place
from benchmark.model_settings import ModelSettings
from benchmark.ranks import OVER, Ranks
from diffusion.ledger import COUNTERS, Ledger
from methods import processes

CPU = ModelSettings(device="cpu", processes=2)
LIMIT = 3.0


def work(rank: int, folder: Path) -> None:
    """One of two processes: what it found, to a file."""
    ranks = Ranks(Place(rank, 2, folder / "ranks", LIMIT))
    ranks.join(CPU, seed=0, threads=1)
    found: dict[str, object] = {
        "backend": dist.get_backend(),
        "place": [processes.rank(), processes.count()],
        "draws": [float(torch.rand(())), random.random(), float(np.random.rand())],
    }
    ledger = Ledger()
    ledger.joules = 1.0
    for _ in range(2):
        ledger.add("unet_forward", 10 + rank)
        ledger.add("optimizer_steps", 1)
        ledger.joules += 1 + rank
        ranks.add_costs(ledger)
        found["counts"], found["joules"] = ledger.counts(), ledger.joules
    if rank == 0:
        time.sleep(0.5)
        ranks.tell("word", "said")
        found["lost"] = lost(lambda: processes.total(1.0))
        ranks.tell(OVER)
    else:
        found["word"] = ranks.hear("word")
        found["over"] = lost(lambda: ranks.hear("another"))
    (folder / f"{rank}.json").write_text(json.dumps(found))


def lost(ask: object) -> list[object]:
    """What losing the others says, and after how many seconds."""
    started = time.monotonic()
    assert callable(ask)
    with pytest.raises(processes.Lost) as error:
        ask()
    return [str(error.value), time.monotonic() - started]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(folder,), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_accelerate_makes_the_group(found: list[dict]) -> None:
    assert [each["backend"] for each in found] == ["gloo", "gloo"]
    assert [each["place"] for each in found] == [[0, 2], [1, 2]]


def test_global_generators_have_a_seed_of_each_rank(found: list[dict]) -> None:
    for first, second in zip(found[0]["draws"], found[1]["draws"], strict=True):
        assert first != second


def test_the_first_ledger_counts_the_work_of_all(found: list[dict]) -> None:
    """But a step that they take together is one, and what the others count stays theirs."""
    first, second = (each["counts"] for each in found)
    assert first == dict.fromkeys(COUNTERS, 0) | {"unet_forward": 42, "optimizer_steps": 2}
    assert second["unet_forward"] == 22
    assert found[0]["joules"] == 1 + 2 + 4 + 1  # the second began at one as well


def test_a_rank_waits_for_a_word_without_limit_and_for_the_group_within_one(
    found: list[dict],
) -> None:
    assert found[1]["word"] == "said"
    reason, seconds = found[0]["lost"]
    assert reason.startswith("process 0 of 2 lost the others: ")
    assert LIMIT - 0.5 < seconds < LIMIT + 10
    reason, seconds = found[1]["over"]
    assert reason == "process 1: the first one has ended"


def test_room_is_counted_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.setattr(capacity, "available", lambda: 7 * capacity.CELL_BYTES)

    def workers(processes: int) -> int:
        return capacity.workers(ModelSettings(device="cpu", processes=processes), 100)

    assert [workers(n) for n in (1, 2, 3, 7, 9)] == [7, 3, 2, 1, 1]


def test_threads_are_divided_among_what_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 8)
    monkeypatch.setattr(capacity, "available", lambda: 100 * capacity.CELL_BYTES)
    values = suite.read("mixture")[0]

    def threads(cells: int, on_ray: bool = False, processes: int = 1, **given: object) -> int:
        model = values["model"] | {"device": "cpu", "processes": processes}
        checked = suite.Suite.model_validate(values | {"model": model} | given)
        return capacity.threads(checked, cells, on_ray)

    assert threads(2) == threads(2, processes=2) == 1
    assert threads(2, threads=3) == threads(2, threads=3, on_ray=True) == 3
    assert [threads(n, threads="auto") for n in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]
    assert [threads(100, threads="auto", workers=n) for n in (1, 2, 9)] == [8, 4, 1]
    assert threads(1, threads="auto", processes=2) == 4
    on_ray = [threads(1, True, 2, threads="auto", cpus_per_cell=n) for n in (None, 0.5, 1, 6)]
    assert on_ray == [1, 1, 1, 3]


def test_each_process_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert not capacity.shortage(ModelSettings(processes=2))
    assert not capacity.shortage(ModelSettings(processes=8, device="cpu"))
    assert capacity.shortage(ModelSettings(processes=3)) == (
        "3 processes need a GPU each, and 2 are here"
    )
    with pytest.raises(ValueError, match="model.processes: 3 processes need a GPU each"):
        Ranks(Place(count=3, file=tmp_path / "ranks")).join(ModelSettings(processes=3), 0, 1)


def test_one_process_is_as_it_was() -> None:
    assert "processes" not in ModelSettings().model_dump()
    assert ModelSettings(processes=2).model_dump()["processes"] == 2
    ranks, ledger = Ranks(), Ledger()
    ranks.join(CPU, 0, 1)
    ranks.tell("nobody")
    ranks.add_costs(ledger)
    assert ranks.leads and not dist.is_initialized()
    assert ledger.counts() == dict.fromkeys(COUNTERS, 0)
