"""One cell: trains a policy with a method on a reward, evaluates it, and leaves its folder.

Runs in a process of its own, see ``benchmark.workers``. Whatever goes wrong ends as a status file
with state ``failed``, its reason and traceback.
"""

from __future__ import annotations

import io
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

import methods
import rewards
from benchmark import density, encoders, energy, memory
from benchmark.evaluation import Evaluation, Evaluator, evaluation_rounds
from benchmark.jobs import CellJob
from benchmark.models import output
from benchmark.progress import CellProgress
from benchmark.scoring import CountedReward, counted_gradient
from benchmark.suite import ModelSettings
from diffusion.ledger import Ledger
from diffusion.mixture import MixturePolicy, load_mixture
from diffusion.path_kl import has_path_kl
from diffusion.pipelines import load_policy
from diffusion.policy import Policy
from results import store
from results.records import (
    Counts,
    DensityRecord,
    EvaluationRecord,
    RoundRecord,
    StatusRecord,
)
from rewards.interface import to_uint8

Notify = Callable[[CellProgress], None]


def run_cell(job: CellJob, notify: Notify) -> StatusRecord:
    """Run the cell from start to end; the status it returns is also the last file it writes."""
    started = time.perf_counter()
    ledger = Ledger()
    store.write_json(job.folder / "config.json", job.config)
    store.write_json(job.folder / "environment.json", job.environment)
    store.write_json(job.folder / "status.json", StatusRecord(state="running"))
    reason, trace = "", ""
    try:
        with ledger.phase("other"):  # all that has no phase of its own
            _CellRun(job, ledger, notify).run()
    except Exception as error:
        trace = traceback.format_exc()
        print(trace, file=sys.stderr, flush=True)
        reason = _reason(error)
    status = StatusRecord(
        state="failed" if trace else "done",
        reason=reason,
        traceback=trace,
        seconds=time.perf_counter() - started,
        seconds_by_phase=ledger.seconds,
        training_seconds_by_phase=ledger.training_seconds,
        network_seconds=memory.if_host(ledger.network_seconds),
        joules=ledger.joules,
        peak_memory_bytes=memory.peak_resident(),
        **memory.gpu_peaks(),
        counts=Counts(**ledger.counts()),
    )
    store.write_json(job.folder / "status.json", status)
    return status


class _CellRun:
    """The parts of a running cell."""

    def __init__(self, job: CellJob, ledger: Ledger, notify: Notify) -> None:
        self.job, self.ledger, self.notify = job, ledger, notify
        config = job.config
        notify(CellProgress(0.0, "loading"))
        with ledger.phase("setup"):
            self.policy = build_policy(job.model, config.seed, ledger)
            ledger.energy = energy.counter(self.policy.device)
            scored_by = {name: rewards.load(name) for name in config.rewards}
            self.reward = scored_by.get(config.reward)
            self.evaluator = Evaluator(
                policy=self.policy,
                prompts=config.evaluation_prompts,
                images_per_prompt=config.images_per_prompt,
                seed=job.evaluation.seed,
                batch_size=job.evaluation.batch_size,
                rewards=scored_by,
                encoders={
                    name: encoders.load(name, self.policy.device)
                    for name in job.evaluation.encoders
                },
                path_kl_images=self._path_kl_images(),
            )
            self.counted = CountedReward(self.reward, ledger)
            self.method = self._build_method()

    def _path_kl_images(self) -> int:
        """None for a method without training, which is the base model, without noise, and of
        points, whose distribution is compared exactly."""
        if not methods.get(self.job.config.method).trains or self.policy.output == "point":
            return 0
        finite = has_path_kl(self.policy.schedule, self.policy.eta)
        asked = min(self.job.evaluation.path_kl_images, self.job.config.images_per_prompt)
        return asked if finite else 0

    def _build_method(self) -> methods.Method:
        config = self.job.config
        kind = methods.get(config.method)
        task = methods.Task(
            policy=self.policy,
            reward=self.counted,
            reward_gradient=counted_gradient(self.reward, self.ledger),
            prompts=tuple(config.train_prompts),
            seed=config.seed,
            images=config.budget_images,
            evaluation_images=len(config.evaluation_prompts) * config.images_per_prompt,
        )
        return kind(task, kind.Config.model_validate(config.method_config))

    def run(self) -> None:
        """Train through the budget, evaluating on the way, and save what remains."""
        rounds = self.method.rounds if self.method.trains else 0
        evaluate_after = evaluation_rounds(rounds, self.job.config.evaluations)
        evaluation = None
        for index in range(1, rounds + 1):
            self._train_round(index, rounds)
            if index in evaluate_after:
                evaluation = self._evaluate(index, rounds)
        self._save(evaluation or self._evaluate(0, 0))

    def _train_round(self, index: int, rounds: int) -> None:
        with self.ledger.training():
            metrics = self.method.step()
        counts = Counts(**self.ledger.counts())
        record = RoundRecord(
            round=index,
            images=counts.images,
            counts=counts,
            seconds=dict(self.ledger.training_seconds),
            metrics=metrics,
        )
        store.append_jsonl(self.job.folder / "metrics.jsonl", record)
        detail = f"round {index}/{rounds}, {counts.images} images"
        self.notify(CellProgress(index / rounds, "training", detail, metrics.get("reward_mean")))

    def _evaluate(self, index: int, rounds: int) -> Evaluation:
        with self.method.evaluated():
            return self._evaluate_policy(index, rounds)

    def _evaluate_policy(self, index: int, rounds: int) -> Evaluation:
        fraction = index / rounds if rounds else 0.0
        candidates = self.method.candidates
        detail = f"round {index}/{rounds}" if rounds else "untrained model"
        if candidates > 1:
            detail += f", best of {candidates}"
        self.notify(CellProgress(fraction, "evaluating", detail))
        if candidates > 1:
            seed = self.job.config.seed
            evaluation = self.evaluator.evaluate_best(candidates, self.counted, seed)
        else:
            evaluation = self.evaluator.evaluate()
        counts = Counts(**self.ledger.counts())
        record = EvaluationRecord(
            round=index,
            images=counts.images,
            counts=counts,
            training_seconds=sum(self.ledger.training_seconds.values()),
            joules=self.ledger.joules,
            rewards=evaluation.rewards,
            diversity=evaluation.diversity,
            bad_images=evaluation.bad_images,
            sampling_images_per_second=evaluation.images_per_second,
            image_statistics=evaluation.image_statistics,
            path_kl=evaluation.path_kl,
            density=self._density(evaluation) if not evaluation.non_finite else None,
        )
        # The record says that the evaluation is there, so what belongs to it comes first.
        store.save_features(store.features_path(self.job.folder, index), evaluation.features)
        store.append_jsonl(self.job.folder / "evaluations.jsonl", record)
        evaluation.require_finite()
        reward = self._mean_reward(evaluation)
        self.notify(CellProgress(fraction, "evaluated", detail, reward))
        return evaluation

    def _density(self, evaluation: Evaluation) -> DensityRecord | None:
        """Exact metrics of a model in closed form; what they rest on is kept, the last time for
        good. Best-of-n has no policy to draw from: its evaluation points themselves are used."""
        if not isinstance(self.policy, MixturePolicy):
            return None
        if self.method.candidates > 1:
            points = evaluation.images.flatten(0, 1)
        else:
            settings = self.job.evaluation
            points = density.draw(self.policy, settings.exact_points, settings.seed)
        record, grids = density.measure(points, self.policy, self.reward, self.method.target)
        store.save_density(self.job.folder / "density.safetensors", grids)
        return record

    def _mean_reward(self, evaluation: Evaluation) -> float | None:
        """Held-out mean of the reward trained on; ``None`` where there is none."""
        if self.job.config.reward not in evaluation.rewards:
            return None
        values = evaluation.rewards[self.job.config.reward]
        return sum(map(sum, values)) / sum(map(len, values))

    def _save(self, evaluation: Evaluation) -> None:
        folder = self.job.folder
        with self.ledger.phase("saving"):
            if self.policy.output == "image":
                self._save_pictures(evaluation)
            if self.method.trains:
                name = "lora" if self.job.model.trainable == "lora" else "unet"
                name = name if self.policy.output == "image" else "network"
                with self.method.evaluated():
                    save_folder(folder / name, self.policy.save_weights)

    def _save_pictures(self, evaluation: Evaluation) -> None:
        for prompt, images in enumerate(evaluation.images):
            for index, pixels in enumerate(to_uint8(images)):
                save_picture(store.sample_path(self.job.folder, prompt, index), pixels)


def build_policy(model: ModelSettings, seed: int, ledger: Ledger) -> Policy:
    """The policy that a suite's model settings describe."""
    device = model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if output(model.name) == "point":
        return load_mixture(
            ledger=ledger,
            sampling_steps=model.sampling_steps,
            eta=model.eta,
            variance=model.variance,
            device=device,
        )
    return load_policy(
        model.name,
        seed=seed,
        ledger=ledger,
        sampling_steps=model.sampling_steps,
        guidance_scale=model.guidance_scale,
        eta=model.eta,
        trainable=model.trainable,
        lora_rank=model.lora_rank,
        lora_alpha=model.lora_alpha,
        dtype=getattr(torch, model.dtype),
        device=device,
    )


def save_folder(folder: Path, save: Callable[[Path], None]) -> None:
    """Have ``save`` fill a folder that is there whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    save(part)
    part.replace(folder)


def save_picture(path: Path, pixels: torch.Tensor) -> None:
    """Write uint8 ``[3, H, W]`` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="png")
    store.write_bytes(path, buffer.getvalue())


def _reason(error: Exception) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
