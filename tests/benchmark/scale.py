"""A run folder of many finished cells, and what a command on it takes.

``python -m tests.benchmark.scale FOLDER CELLS`` writes one; numbers are drawn at random.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results import records, store
from tests.results.synthetic import BUDGET, EVALUATIONS, PROMPTS, Synthetic, work

METHODS, SEEDS = 9, 10
PER_REWARD = METHODS * SEEDS
SOURCES = {"benchmark.cell", "methods.dag"}


def write(folder: Path, cells: int) -> Path:
    """A run of so many cells, 10 of ``base`` and a multiple of 90: best-of-n and eight methods,
    ten seeds, and as many rewards as that makes; 100, 1,000 and 10,000 are such numbers."""
    rewards = [f"reward-{number}" for number in range((cells - SEEDS) // PER_REWARD)]
    methods = [f"method-{number}" for number in range(METHODS - 1)]
    template = Synthetic(folder, seeds=range(SEEDS), methods=methods, rewards=rewards)
    ids = [f"base--none--s{s}" for s in range(SEEDS)]
    ids += [
        f"{m}--{r}--s{s}" for m in ["best-of-n", *methods] for r in rewards for s in range(SEEDS)
    ]
    record = template.run_record(ids)
    sources = {name: sorted(SOURCES) for name in record.methods}
    record = record.model_copy(update={"sources": sources})
    store.write_json(folder / "run.json", record)
    random = np.random.default_rng(0)
    for cell_id in ids:
        _write_cell(template, cell_id, random)
    return folder


def _write_cell(template: Synthetic, cell_id: str, random: np.random.Generator) -> None:
    method, reward, seed = cell_id.split("--")
    folder = store.cell_folder(template.folder, cell_id)
    config = template.config(cell_id, method, reward, int(seed[1:]))
    # Base serves every reward; the others are scored by their own alone.
    scored = list(template.rewards) if method == "base" else [reward]
    store.write_json(folder / "config.json", config.model_copy(update={"rewards": scored}))
    store.write_json(folder / "environment.json", template.environment())
    trains = method.startswith("method")
    shares = [k / EVALUATIONS for k in range(1, EVALUATIONS + 1)] if trains else [0.0]
    evaluations = [_evaluation(random, scored, share) for share in shares]
    if method == "best-of-n":
        calls = evaluations[0].counts.model_copy(update={"reward_calls": BUDGET})
        evaluations[0] = evaluations[0].model_copy(update={"counts": calls})
    store.write_jsonl(folder / "evaluations.jsonl", evaluations)
    rounds = [
        records.RoundRecord(
            round=k, images=8 * k, counts=work("ddpo", k / 16), seconds={}, metrics={"loss": 0.5}
        )
        for k in range(1, 17)
    ]
    store.write_jsonl(folder / "metrics.jsonl", rounds if trains else [])
    status = records.StatusRecord(state="done", key="0" * 16, seconds=81.0, counts=work("ddpo", 1))
    store.write_json(folder / "status.json", status)


def _evaluation(
    random: np.random.Generator, rewards: list[str], share: float
) -> records.EvaluationRecord:
    shape = (len(PROMPTS), 4)
    return records.EvaluationRecord(
        round=round(16 * share),
        images=round(128 * share),
        counts=work("ddpo", share),
        training_seconds=60 * share,
        rewards={name: (share + random.normal(0, 0.1, shape)).tolist() for name in rewards},
        diversity={"scorer": random.uniform(0.2, 0.4, len(PROMPTS)).tolist()},
        bad_images={"non_finite": 0, "black": 0, "constant": 0},
        sampling_images_per_second=7.5,
    )


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def measure(*arguments: str | Path) -> Cost:
    """``python -m benchmark`` in a process of its own. Raises ``CalledProcessError``."""
    program = (
        "import resource, subprocess, sys, time\n"
        "start = time.monotonic()\n"
        "subprocess.run([sys.executable, '-m', 'benchmark', *sys.argv[1:]], check=True,"
        " stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, processor, peak = done.stdout.split()
    return Cost(float(seconds), float(processor), int(peak))


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2])))
