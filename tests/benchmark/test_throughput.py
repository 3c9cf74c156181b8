"""``benchmark throughput``: the warm-up rule, the meters, and the command from end to end."""

from __future__ import annotations

import math
import re
import types
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import energy, memory
from benchmark.scoring import CountedReward
from benchmark.warm_up import settled, warm_up
from diffusion.ledger import Ledger
from methods.ddpo_sf import DdpoSf
from results import store
from results.records import SCHEMA_VERSION
from results.throughput import FILE_NAME, ThroughputRecord
from rewards.style import Style
from tests.benchmark.conftest import Command, one_line_error


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0] * 4, False),  # too few to tell
        ([1.0] * 5, True),
        ([5.0, 1.0, 1.0, 1.0, 1.0], True),  # one slow round is no trend
        ([1.0, 1.0, 7.0, 1.0, 1.0], True),
        ([3.0, 2.5, 2.0, 1.5, 1.0], False),
        ([1.0, 1.0, 1.2, 1.2, 1.2], False),
        ([1.0, 1.01, 1.02, 1.03, 1.04], True),
        ([9.0, 8.0, 7.0, 1.0, 1.0, 1.0, 1.0, 1.0], True),
    ],
)
def test_when_rounds_have_settled(seconds: list[float], expected: bool) -> None:
    assert settled(seconds) is expected


def test_the_warm_up_ends_when_settled_or_at_its_cap() -> None:
    falling = (1 + math.exp(-n / 2) for n in count())
    seconds, steady = warm_up(lambda: next(falling), cap=20)
    assert steady and 5 < len(seconds) < 20
    assert settled(seconds) and not settled(seconds[:-1])
    growing = (1.1**n for n in count())
    assert warm_up(lambda: next(growing), cap=7) == ([1.1**n for n in range(7)], False)
    assert warm_up(lambda: 1.0, cap=0) == ([], False)


def test_noise_does_not_keep_it_from_settling() -> None:
    random = np.random.default_rng(0)
    lengths = [
        len(warm_up(lambda: float(np.exp(random.normal(0, 0.05))), cap=20)[0]) for _ in range(500)
    ]
    assert np.median(lengths) <= 7 and np.mean(np.array(lengths) < 20) > 0.98


def test_joules_are_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    millijoules = iter([0, 5000, 17_500])

    def by_uuid(uuid: bytes) -> str:
        asked.append(uuid)
        return "handle"

    nvml = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(millijoules),
    )
    gpu, properties = torch.device("cuda"), types.SimpleNamespace(uuid="12ab")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(energy.importlib, "import_module", lambda name: nvml)
    joules = energy.counter(gpu)
    assert joules is not None
    assert (joules(), joules()) == (5.0, 17.5)
    assert asked == [b"GPU-12ab"]
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1 / 0  # no such counter
    assert energy.counter(gpu) is None
    assert energy.counter(torch.device("cpu")) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's")
def test_the_peak_of_resident_memory_begins_anew() -> None:
    block = bytearray(200 << 20)
    assert memory.peak_resident() > 200 << 20
    before = memory.peak_resident()
    del block
    assert memory.reset()
    assert memory.peak_resident() < before - (150 << 20)


def test_the_time_of_a_rewards_network_is_the_scorers() -> None:
    ledger, images = Ledger(), torch.rand(4, 3, 64, 64)
    reward = CountedReward(Style(), ledger)
    reward(images, ["a"] * 4)
    assert 0 < ledger.network_seconds["scorer"] < ledger.seconds["reward"]
    inside = dict(ledger.network_seconds)
    with ledger.suspended():
        reward(images, ["a"] * 4)
    Style()(images, ["a"] * 4)  # scored by somebody else
    assert ledger.network_seconds == inside


@pytest.fixture
def measured(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> tuple[str, ThroughputRecord]:
    options = "{prompts_per_round: 2, images_per_prompt: 2, timestep_fraction: 1.0}"
    done = benchmark_command(
        *("throughput", "--suite", tiny_suite, "--methods", "dag,ddpo,alignprop,base"),
        *("--reward", "jpeg_compressibility", "--rounds", "3", "--warm-up", "2"),
        *("--set", f"dag={options}", "--set", "alignprop.images_per_prompt=2"),
        *("--out", tmp_path / "measured"),
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "measured" / FILE_NAME
    return done.stdout, store.read_json(path, ThroughputRecord)


def test_the_command_from_end_to_end(measured: tuple[str, ThroughputRecord]) -> None:
    printed, record = measured
    assert record.schema_version == SCHEMA_VERSION
    assert [row.method for row in record.methods] == ["dag", "ddpo"]
    assert "jpeg_compressibility has none" in record.not_measured["alignprop"]
    assert "base does not train" in record.not_measured["base"]
    for row in record.methods:
        total = sum(row.round_seconds)
        assert len(row.round_seconds) == 3 and len(row.warm_up.seconds) == 2
        assert not row.warm_up.settled and row.first_round_seconds > 0
        assert row.quartiles_seconds[0] <= row.median_seconds <= row.quartiles_seconds[1]
        assert sum(row.seconds_by_phase.values()) == pytest.approx(total, rel=0.02)
        # 3 rounds x 4 images x 3 steps x 2 branches, to sample and in each pass of training, less
        # the first call of the second image of each prompt; no warm-up in it
        passes = {"dag": 1, "ddpo": 2}[row.method]
        assert row.counts.unet_forward == 72 * (1 + passes) - 3 * 2 * 2
        assert row.counts.images == 12
        assert row.trained_images_per_second == pytest.approx(12 / total)
        sampling = row.seconds_by_phase["sample"]
        assert row.sampled_images_per_second == pytest.approx(12 / sampling)
        assert 0.3 < row.network_share < 1
        assert row.peak_memory_bytes > 50_000_000
        assert row.machine.cpu == record.environment.cpu and row.machine.gpu is None
        assert row.joules is None
    assert set(record.methods[0].network_seconds) - set(record.methods[1].network_seconds) == {
        "flow"
    }
    (found,) = record.ratios
    assert (found.method, found.reference, found.pairs) == ("dag", "ddpo", 3)
    assert found.low < found.ratio < found.high
    assert "not measured: base does not train" in printed
    assert "not settled after 2 more" in printed
    for text in ("images trained/s", "backward", "95 % intervals", "not measured", "written"):
        assert text in printed
    # Every table says by which protocol, and every row of one on what machine, in several lines
    # where it is narrow.
    assert len(record.protocol) == 16
    assert " ".join(printed.split()).count(f"protocol {record.protocol}") == 3
    rows = [line for line in printed.splitlines() if re.match(r"│ (dag|ddpo) ", line)]
    machine = str(record.methods[0].machine)
    assert len(rows) == 2 + 2 + 1
    assert all(line.split("│")[-2].strip() in machine for line in rows)
    assert all(line.split("│")[-2].strip() for line in rows)


def test_a_method_that_fails_leaves_the_others_measured(
    benchmark_command: Command,
    tiny_suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds, step = count(1), DdpoSf.step

    def fails_in_its_third_round(self: DdpoSf) -> dict[str, float]:
        if next(rounds) == 3:
            raise RuntimeError("the gradient is not finite")
        return step(self)

    monkeypatch.setattr(DdpoSf, "step", fails_in_its_third_round)
    done = benchmark_command(
        *("throughput", "--suite", tiny_suite, "--methods", "ddpo-sf,ddpo", "--rounds", "2"),
        *("--reward", "colourfulness", "--warm-up", "0", "--out", tmp_path / "measured"),
        *("--set", "ddpo-sf={prompts_per_round: 2, images_per_prompt: 2}"),
    )
    assert "1 of 2 methods failed: ddpo-sf failed: RuntimeError" in one_line_error(done, 2)
    record = store.read_json(tmp_path / "measured" / FILE_NAME, ThroughputRecord)
    assert [row.method for row in record.methods] == ["ddpo"]
    assert len(record.methods[0].round_seconds) == 2 and record.ratios == []
    assert "the gradient is not finite" in record.not_measured["ddpo-sf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "dga"], "did you mean 'dag'"),
        (["--reward", "stile"], "--reward stile: unknown reward 'stile'; did you mean 'style'"),
        (["--rounds", "1"], "--rounds"),
        (["--set", "budget.imgaes=1"], "did you mean 'images'"),
        (["--methods", "base"], "no method can be measured on style: base does not train"),
        (["--methods", "ddpo", "--set", "budget.images=1"], "less than one round"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    benchmark_command: Command, arguments: list[str], message: str
) -> None:
    assert message in one_line_error(benchmark_command("throughput", *arguments), 4)


def test_a_folder_with_something_in_it_is_refused(
    benchmark_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("mine", encoding="utf-8")
    done = benchmark_command("throughput", "--out", tmp_path)
    assert "not an empty folder" in one_line_error(done, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt"]
