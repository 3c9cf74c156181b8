"""One cell: trains a policy with a method on a reward, evaluates it, and leaves its folder.

Of its evaluations one is reported, picked by the rule of the protocol: pictures, densities and
weights are those of that checkpoint, and it alone is sampled with the further noises of the
sampler, once training is over.

Runs in a process of its own, see ``benchmark.workers``. Whatever goes wrong ends as a status file
with state ``failed``, its reason and traceback.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import traceback
from collections.abc import Callable

import methods
from benchmark import composites, density, encoders, energy, memory
from benchmark.checkpoints import Checkpoint, Checkpoints
from benchmark.evaluation import Evaluation, Evaluator, Values, evaluation_rounds
from benchmark.jobs import CellJob
from benchmark.policies import build_policy
from benchmark.progress import CellProgress
from benchmark.scoring import CountedReward, counted_gradient
from diffusion.ledger import Ledger
from diffusion.mixture import MixturePolicy
from diffusion.path_kl import has_path_kl
from results import store
from results.density import Array
from results.records import (
    Counts,
    DensityRecord,
    EvaluationRecord,
    RoundRecord,
    SamplerRecord,
    StatusRecord,
)

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
            scored_by = {name: composites.load(name, config.composites) for name in config.rewards}
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
                eta=config.etas[0],
                augmented=self._augmented(),
            )
            self.counted = CountedReward(self.reward, ledger)
            self.method = self._build_method()
        self.checkpoints = Checkpoints(config.checkpoint)

    def _path_kl_images(self) -> int:
        """None for a method without training, which is the base model, without noise, and of
        points, whose distribution is compared exactly."""
        if not methods.get(self.job.config.method).trains or self.policy.output == "point":
            return 0
        finite = has_path_kl(self.policy.schedule, self.job.config.etas[0])
        asked = min(self.job.evaluation.path_kl_images, self.job.config.images_per_prompt)
        return asked if finite else 0

    def _augmented(self) -> tuple[str, ...]:
        """Rewards that score changed images too: that trained on, for ``base`` all; of points
        there is nothing to change."""
        if self.policy.output == "point":
            return ()
        config = self.job.config
        return (config.reward,) if self.reward is not None else tuple(config.rewards)

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
        for index in range(1, rounds + 1):
            self._train_round(index, rounds)
            if index in evaluate_after:
                self._evaluate(index, rounds)
        if not evaluate_after:
            self._evaluate(0, 0)
        self._finish(self.checkpoints.picked)

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

    def _evaluate(self, index: int, rounds: int) -> None:
        with self.method.evaluated():
            evaluation, grids, validation = self._evaluate_policy(index, rounds)
            weights = self.policy.state_dict if self.method.trains else None
            self.checkpoints.add(index, evaluation, grids, validation, weights)

    def _evaluate_policy(
        self, index: int, rounds: int
    ) -> tuple[Evaluation, dict[str, Array], Values]:
        """What one evaluation found, the grids of exact metrics, and the validation rewards."""
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
        density_record, grids = self._density(evaluation)
        validation = [] if evaluation.non_finite else self._validate()
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
            augmented=evaluation.augmented,
            validation=validation,
            density=density_record,
        )
        # The record says that the evaluation is there, so what belongs to it comes first.
        store.save_features(store.features_path(self.job.folder, index), evaluation.features)
        store.append_jsonl(self.job.folder / "evaluations.jsonl", record)
        evaluation.require_finite()
        reward = self._mean_reward(evaluation)
        self.notify(CellProgress(fraction, "evaluated", detail, reward))
        return evaluation, grids, validation

    def _validate(self) -> Values:
        """The reward trained on of the validation images; none where nothing is picked by it."""
        config = self.job.config
        if not (self.method.trains and config.validation_prompts):
            return []
        validation = dataclasses.replace(
            self.evaluator,
            prompts=config.validation_prompts,
            images_per_prompt=config.validation_images_per_prompt,
        )
        return validation.reward_values(config.reward)

    def _density(self, evaluation: Evaluation) -> tuple[DensityRecord | None, dict[str, Array]]:
        """Exact metrics of a model in closed form, and the grids that they rest on. Best-of-n has
        no policy to draw from: its evaluation points themselves are used."""
        if not isinstance(self.policy, MixturePolicy) or evaluation.non_finite:
            return None, {}
        if self.method.candidates > 1:
            points = evaluation.images.flatten(0, 1)
        else:
            settings = self.job.evaluation
            eta = self.job.config.etas[0]
            points = density.draw(self.policy, settings.exact_points, settings.seed, eta)
        return density.measure(points, self.policy, self.reward, self.method.target)

    def _mean_reward(self, evaluation: Evaluation) -> float | None:
        """Held-out mean of the reward trained on; ``None`` where there is none."""
        if self.job.config.reward not in evaluation.rewards:
            return None
        values = evaluation.rewards[self.job.config.reward]
        return sum(map(sum, values)) / sum(map(len, values))

    def _finish(self, picked: Checkpoint) -> None:
        """The picked checkpoint with the further samplers, then what is kept of it."""
        if picked.weights:
            self.policy.load_state_dict(picked.weights)
        # Best-of-n chooses among samples: with another sampler it would have to draw all again.
        for eta in self.job.config.etas[1:] if self.method.candidates == 1 else []:
            self._sample_at(eta, picked.round)
        with self.ledger.phase("saving"):
            picked.save(self.job.folder, self.policy, self.job.model.trainable)

    def _sample_at(self, eta: float, round_: int) -> None:
        self.notify(CellProgress(1.0, "evaluating", f"round {round_}, eta {eta:g}"))
        evaluation = dataclasses.replace(
            self.evaluator, eta=eta, path_kl_images=0, augmented=()
        ).evaluate()
        record = SamplerRecord(
            eta=eta,
            round=round_,
            rewards=evaluation.rewards,
            diversity=evaluation.diversity,
            bad_images=evaluation.bad_images,
            sampling_images_per_second=evaluation.images_per_second,
        )
        store.append_jsonl(self.job.folder / "samplers.jsonl", record)


def _reason(error: Exception) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
