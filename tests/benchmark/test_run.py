"""Whole runs on a tiny real model: what they leave, what they cost, and what failure leaves."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.augmentations import AUGMENTATIONS
from benchmark.environment import cores
from benchmark.protocol import digest
from diffusion.ledger import PHASES
from results import reproduction, store
from results.diversity import pairwise_cosine_distance
from results.records import RunRecord
from tests.benchmark.conftest import Command, environment, one_line_error, run_command, write_suite

COLOUR, JPEG = "ddpo--colourfulness--s0", "ddpo--jpeg_compressibility--s0"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a finished run of the tiny suite in ``runs/tiny-001``."""
    folder = tmp_path_factory.mktemp("work")
    suite = write_suite(folder, tiny_model)
    done = run_command(folder, "run", "--suite", suite, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "report runs/tiny-001/report.html" in done.stdout
    assert "\x1b" not in done.stdout
    return folder


@pytest.fixture(scope="module")
def finished(work: Path) -> store.Run:
    return store.read_run(work / "runs" / "tiny-001")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(cell: Path) -> int:
    found = re.match(r"process (\d+)", (cell / "log.txt").read_text(encoding="utf-8"))
    assert found
    return int(found[1])


def test_every_cell_is_done_and_complete(finished: store.Run) -> None:
    assert list(finished.cells) == [
        "base--none--s0",
        "best-of-n--jpeg_compressibility--s0",
        "best-of-n--colourfulness--s0",
        JPEG,
        COLOUR,
    ]
    for cell in finished.cells.values():
        assert cell.status.state == "done"
        assert cell.status.peak_memory_bytes > 50_000_000
        assert cell.config is not None
        assert cell.config.protocol == finished.record.protocol
        assert cell.environment is not None
        assert cell.environment.versions["torch"]
        assert len(list((cell.folder / "samples").iterdir())) == 4
        for evaluation in cell.evaluations:
            features = store.load_features(store.features_path(cell.folder, evaluation.round))
            assert features["efficientnet-lite0"].shape == (2, 2, 1280)
            distances = pairwise_cosine_distance(features["efficientnet-lite0"])
            assert evaluation.diversity["efficientnet-lite0"] == distances
            # What is trained on is scored after small changes too; of base, every reward is.
            changed = finished.record.rewards if cell.method == "base" else [cell.reward]
            assert set(evaluation.augmented) == set(changed)
            for values in evaluation.augmented.values():
                assert list(values) == list(AUGMENTATIONS)
                assert all(np.isfinite(value).all() for value in values.values())
    assert (finished.folder / "report.html").stat().st_size > 10_000
    assert not list(finished.folder.rglob(".*"))


def test_training_cost_is_counted_and_evaluation_is_not(finished: store.Run) -> None:
    for cell_id in (JPEG, COLOUR):
        cell = finished.cells[cell_id]
        counts = cell.status.counts
        # 2 rounds x 4 images x 3 steps x 2 branches of guidance, once to sample, twice to train;
        # the 2 images of a prompt share the first call of sampling
        assert (counts.images, counts.reward_calls, counts.vae_decode) == (8, 8, 8)
        assert (counts.unet_forward, counts.unet_backward) == (136, 96)
        assert [record.round for record in cell.rounds] == [1, 2]
        assert [record.round for record in cell.evaluations] == [1, 2]
        assert cell.status.seconds_by_phase["evaluation"] > 0
        assert "evaluation" not in cell.rounds[-1].seconds
    base = finished.cells["base--none--s0"]
    assert not any(base.status.counts.model_dump().values())


def test_phases_are_disjoint_and_sum_to_the_wall_time(finished: store.Run) -> None:
    for cell in finished.cells.values():
        phases = cell.status.seconds_by_phase
        assert list(phases) == [name for name in PHASES if name in phases]
        assert sum(phases.values()) == pytest.approx(cell.status.seconds, rel=0.02)
    for cell_id in (JPEG, COLOUR):
        cell = finished.cells[cell_id]
        training = cell.status.training_seconds_by_phase
        assert training == pytest.approx(cell.rounds[-1].seconds)
        assert set(training) == set(PHASES) - {"setup", "evaluation", "saving"}
        assert sum(training.values()) == pytest.approx(cell.evaluations[-1].training_seconds)
        named = sum(seconds for name, seconds in training.items() if name != "other")
        assert named > 0.9 * sum(training.values())
        for name, seconds in training.items():
            assert seconds <= cell.status.seconds_by_phase[name] + 1e-9
        networks = cell.status.network_seconds
        assert networks is not None and set(networks) == {"unet", "vae", "text_encoder"}
        assert 0.3 < sum(networks.values()) / sum(training.values()) < 1
        assert cell.status.joules is None and cell.status.peak_gpu_reserved_bytes is None
    assert finished.cells["base--none--s0"].status.training_seconds_by_phase == {}


def test_best_of_n_pays_for_its_candidates_and_never_loses_to_base(finished: store.Run) -> None:
    base = finished.cells["base--none--s0"].evaluations[-1]
    for reward in ("jpeg_compressibility", "colourfulness"):
        best = finished.cells[f"best-of-n--{reward}--s0"]
        assert best.status.counts.reward_calls == best.status.counts.images == 8
        kept = np.array(best.evaluations[-1].rewards[reward])
        assert (kept >= np.array(base.rewards[reward])).all()


def test_methods_start_from_the_same_noise(finished: store.Run) -> None:
    def picture(cell_id: str) -> np.ndarray:
        with Image.open(store.sample_path(finished.cells[cell_id].folder, 0, 0)) as image:
            return np.asarray(image, dtype=float)

    base = picture("base--none--s0")
    with Image.open(store.sample_path(finished.cells["base--none--s0"].folder, 0, 1)) as image:
        other_noise = np.asarray(image, dtype=float)
    moved = np.abs(picture(COLOUR) - base).mean()
    assert 0 < moved < np.abs(other_noise - base).mean() / 2


def test_the_adapters_load_in_diffusers(finished: store.Run, tiny_model: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(finished.cells[COLOUR].folder / "lora")
    assert any("lora_B" in name and p.any() for name, p in pipeline.unet.named_parameters())


def test_a_finished_run_is_left_alone(work: Path, benchmark_command: Command) -> None:
    run = work / "runs" / "tiny-001"
    before = {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")}
    done = benchmark_command("run", "--suite", work / "tiny.yaml", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "0 of 5 cells to run" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*")} == before


def test_other_settings_do_not_mix_with_a_run(work: Path) -> None:
    run = work / "runs" / "tiny-001"
    arguments = (
        "run",
        "--suite",
        work / "tiny.yaml",
        "--out",
        run,
        "--set",
        "ddpo.ratio_clip=1e-3",
    )
    message = one_line_error(run_command(work, *arguments), 4)
    assert "holds a run with other settings (methods.ddpo.ratio_clip)" in message


def test_only_unfinished_cells_run_again(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(work / "runs" / "tiny-001", run)
    (run / "cells" / "base--none--s0" / "status.json").unlink()
    before = (run / "cells" / COLOUR / "status.json").stat().st_mtime_ns
    done = run_command(tmp_path, "run", "--suite", work / "tiny.yaml", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "1 of 5 cells to run" in done.stdout
    again = store.read_run(run).cells["base--none--s0"]
    first = store.read_run(work / "runs" / "tiny-001").cells["base--none--s0"]
    assert again.status.state == "done"
    assert again.evaluations[-1].rewards == first.evaluations[-1].rewards
    assert (run / "cells" / COLOUR / "status.json").stat().st_mtime_ns == before


def test_report_goes_where_it_is_asked_to(
    work: Path, tmp_path: Path, benchmark_command: Command
) -> None:
    page = tmp_path / "page.html"
    done = benchmark_command("report", work / "runs" / "tiny-001", "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert "<html" in page.read_text(encoding="utf-8")


def test_the_command_of_a_cell_makes_it_again(finished: store.Run, tmp_path: Path) -> None:
    cell = finished.cells[COLOUR]
    command = reproduction.command(cell, finished.record)
    arguments = shlex.split(command)[3:]
    assert arguments[-6:] == [*("--methods", "ddpo", "--seeds", "0", "--rewards", "colourfulness")]
    done = run_command(tmp_path, *arguments, "--out", "again")
    assert done.returncode == 0, done.stderr
    again = store.read_run(tmp_path / "again")
    assert list(again.cells) == ["base--none--s0", "best-of-n--colourfulness--s0", COLOUR]
    assert reproduction.key(again.cells[COLOUR]) == reproduction.key(cell)
    assert again.cells[COLOUR].evaluations[-1].rewards == cell.evaluations[-1].rewards


def test_a_failing_cell_leaves_the_others_done(tmp_path: Path, tiny_model: Path) -> None:
    suite = write_suite(tmp_path, tiny_model)
    arguments = ("--rewards", "colourfulness", "--set", "ddpo.learning_rate=1e30")
    done = run_command(tmp_path, "run", "--suite", suite, *arguments)
    assert f"1 of 3 cells failed: {COLOUR}" in one_line_error(done, 2)
    cells = store.read_run(tmp_path / "runs" / "tiny-001").cells
    assert {name: cell.status.state for name, cell in cells.items()} == {
        "base--none--s0": "done",
        "best-of-n--colourfulness--s0": "done",
        COLOUR: "diverged",
    }
    assert re.search("finite|NaN", cells[COLOUR].status.reason)
    assert "Traceback" in cells[COLOUR].status.traceback
    assert (tmp_path / "runs" / "tiny-001" / "report.html").exists()


def test_the_embedded_model_runs(tmp_path: Path) -> None:
    settings = ["budget.images=8", "evaluation.images_per_prompt=2", "evaluation.times=1"]
    settings += ["model.sampling_steps=2", "prompts.test=[a lion]"]
    settings += ["ddpo={prompts_per_round: 2, images_per_prompt: 2}", "threads=auto"]
    settings += [f"workers={cores()}"]
    changes = [argument for setting in settings for argument in ("--set", setting)]
    arguments = ("--methods", "ddpo", "--rewards", "colourfulness", "--seeds", "0", *changes)
    done = run_command(tmp_path, "run", "--suite", "emoji-quick", *arguments)
    assert done.returncode == 0, done.stderr
    run = store.read_run(tmp_path / "runs" / "emoji-quick-001")
    assert [cell.status.state for cell in run.cells.values()] == ["done"] * 3
    assert set(run.cells[COLOUR].evaluations[-1].diversity) == {"scorer", "efficientnet-lite0"}
    where = run.cells[COLOUR].environment
    assert where is not None and where.cpu_threads == 1, "a core for each cell at a time"


def start_run(folder: Path, tiny_model: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run in its own process, at the moment when its last cell has trained for one round."""
    suite = write_suite(folder, tiny_model)
    settings = ["--rewards", "colourfulness", "--set", "budget.images=160", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", "run", "--suite", str(suite), *settings],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = folder / "runs" / "tiny-001"
    wait_for(lambda: (run / "cells" / COLOUR / "metrics.jsonl").exists())
    return process, run


def test_a_killed_process_is_a_failed_cell(tmp_path: Path, tiny_model: Path) -> None:
    process, run = start_run(tmp_path, tiny_model)
    os.kill(pid_of(run / "cells" / COLOUR), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    cells = store.read_run(run).cells
    assert cells[COLOUR].status.state == "failed"
    assert "SIGKILL" in cells[COLOUR].status.reason
    assert cells["base--none--s0"].status.state == "done"
    assert cells["best-of-n--colourfulness--s0"].status.state == "done"


def test_an_interrupted_run_ends_its_processes(tmp_path: Path, tiny_model: Path) -> None:
    process, run = start_run(tmp_path, tiny_model)
    child = pid_of(run / "cells" / COLOUR)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("error: interrupted")
    assert "--out runs/tiny-001 finishes the rest" in errors
    assert len(errors.strip().splitlines()) == 1
    wait_for(lambda: not alive(child), seconds=20)
    assert store.read_run(run).cells[COLOUR].status.reason == "interrupted"


def test_the_run_keeps_the_content_of_its_protocol(
    finished: store.Run, benchmark_command: Command
) -> None:
    record = finished.record
    assert digest(record.protocol_content) == record.protocol
    assert record.protocol_content["checkpoint"] == "best-on-validation"
    assert record.protocol_content["further_etas"] == [0.0]
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    main = page[page.index("<main") : page.index("</main>")]
    assert main.count("<table") == main.count(f"protocol <code>{record.protocol}</code></span>")
    measured = benchmark_command("measure", "all", finished.folder)
    assert record.protocol in measured.stdout


def test_another_protocol_is_refused_by_name(
    work: Path, tmp_path: Path, benchmark_command: Command
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(work / "runs" / "tiny-001", run)
    record = store.read_json(run / "run.json", RunRecord)
    rewards = record.protocol_content["rewards"] | {"colourfulness": "0"}
    content = record.protocol_content | {"rewards": rewards}
    changed = record.model_copy(update={"protocol": "0" * 16, "protocol_content": content})
    store.write_json(run / "run.json", changed)
    arguments = ("run", "--suite", work / "tiny.yaml", "--out", run)
    message = one_line_error(benchmark_command(*arguments), 4)
    assert "holds a run with other settings (rewards.colourfulness)" in message
