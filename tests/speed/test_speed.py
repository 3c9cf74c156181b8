"""How long the parts take: ``python -m pytest -m speed --benchmark-json speed-1.json``.

The files are compared by ``python -m benchmark gate``, see ``docs/gate.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import methods
from benchmark.conformance.tiny import TinyPolicy
from benchmark.conformance.trial import Trial
from diffusion.kernel import log_density, transition
from diffusion.ledger import Ledger
from diffusion.mixture import load_mixture
from diffusion.randomness import generator
from diffusion.rollout import rollout
from reports.html import write_report
from results import metrics
from tests.methods.conftest import available
from tests.results.synthetic import Synthetic

pytestmark = pytest.mark.speed

TRAINED = [name for name, kind in methods.registry().items() if kind.trains]
ROUNDS, WARM_UP = 30, 5
PROMPTS, IMAGES, WIDTH = 12, 8, 256
"""Of the features that metrics are computed from."""


@pytest.fixture(autouse=True)
def one_thread(benchmark: Any) -> Any:
    """As in cells; recorded, since numbers of other settings do not compare."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    benchmark.extra_info["threads"] = 1
    yield
    torch.set_num_threads(before)


def test_kernel_step(benchmark: Any) -> None:
    """Distribution of a step, its sample and log-density: 32 latents of Stable Diffusion."""
    policy, n = TinyPolicy(steps=10), 32
    latents, noise, drawn = torch.randn(3, n, 4, 64, 64, generator=generator(0, "speed"))
    step = torch.arange(n) % 10

    def run() -> torch.Tensor:
        gaussian = transition(policy.schedule, step, latents, noise)
        return log_density(gaussian.sample(drawn), gaussian, "sum")

    assert benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=WARM_UP).shape == (n,)


def test_rollout(benchmark: Any) -> None:
    """256 trajectories of 20 steps of the exact testbed."""
    policy = load_mixture(ledger=Ledger(), sampling_steps=20)

    def run() -> Any:
        generators = [generator(0, "speed", index) for index in range(256)]
        return rollout(policy, ["a point"] * 256, generators)

    found = benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=WARM_UP)
    assert found.log_densities.shape == (20, 256)


@pytest.mark.parametrize("name", TRAINED)
def test_update(benchmark: Any, name: str) -> None:
    """A training round of a method, eight images of a model of a few hundred weights."""
    trial = Trial(available(name))
    images = trial.images
    while (method := trial.method(trial.task(TinyPolicy(), images))).rounds < ROUNDS + WARM_UP:
        images *= 2
    found = benchmark.pedantic(method.step, rounds=ROUNDS, warmup_rounds=WARM_UP)
    assert np.isfinite(found["reward_mean"])


@pytest.mark.parametrize("name", metrics.registry())
def test_metric(benchmark: Any, name: str) -> None:
    """A metric of 12 prompts of 8 images, 256 features each, or of as many as it needs."""
    metric = metrics.load(name)
    prompts = max(PROMPTS, -(-metric.minimum // IMAGES))
    features, base = np.random.default_rng(0).normal(size=(2, prompts, IMAGES, WIDTH))
    rounds, warm_up = (ROUNDS, WARM_UP) if prompts == PROMPTS else (3, 1)
    found = benchmark.pedantic(
        metric.measure, args=(features, base), rounds=rounds, warmup_rounds=warm_up
    )
    assert np.isfinite(found.value)


def test_report(benchmark: Any, tmp_path: Path) -> None:
    """The page of a run of 20 cells."""
    run = Synthetic(tmp_path / "run", measured=True).write()
    page = tmp_path / "report.html"
    benchmark.pedantic(write_report, args=(run, page), rounds=5, warmup_rounds=1)
    assert page.stat().st_size > 100_000
