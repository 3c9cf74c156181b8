"""The evaluations of one cell: what each finds, and the records it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import methods
from benchmark import density, encoders
from benchmark.evaluation import Evaluation, Evaluator, Values
from benchmark.jobs import CellJob
from benchmark.progress import CellProgress
from benchmark.stopping import Stop
from benchmark.training_state import History
from diffusion.mixture import MixturePolicy
from diffusion.path_kl import has_path_kl
from results import store
from results.density import Array
from results.records import Counts, DensityRecord, EvaluationRecord, SamplerRecord
from rewards import Reward

Notify = Callable[[CellProgress], None]


class CellEvaluations:
    """Evaluates the policy of a cell's method; may be stopped while it samples and scores."""

    def __init__(
        self,
        job: CellJob,
        method: methods.Method,
        scored_by: Mapping[str, Reward],
        notify: Notify,
        stop: Stop,
        history: History,
    ) -> None:
        self.job, self.method, self.notify, self.stop = job, method, notify, stop
        self.history = history
        self.policy, self.ledger = method.policy, method.policy.ledger
        config = job.config
        self.reward = scored_by.get(config.reward)
        self.evaluator = Evaluator(
            policy=self.policy,
            prompts=config.evaluation_prompts,
            images_per_prompt=config.images_per_prompt,
            seed=job.evaluation.seed,
            batch_size=job.evaluation.batch_size,
            rewards=scored_by,
            encoders={
                name: encoders.load(name, self.policy.device) for name in job.evaluation.encoders
            },
            path_kl_images=self._path_kl_images(),
            eta=config.etas[0],
            augmented=self._augmented(),
        )

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

    def evaluate(self, index: int, rounds: int) -> tuple[Evaluation, dict[str, Array], Values]:
        """What one evaluation found, the grids of exact metrics, and the validation rewards."""
        fraction = index / rounds if rounds else 0.0
        candidates = self.method.candidates
        detail = f"round {index}/{rounds}" if rounds else "untrained model"
        if candidates > 1:
            detail += f", best of {candidates}"
        self.notify(CellProgress(fraction, "evaluating", detail))
        with self.stop.interruptible():
            if candidates > 1:
                seed = self.job.config.seed
                evaluation = self.evaluator.evaluate_best(candidates, self.method.task.reward, seed)
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
            **self.history.training_peaks,
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

    def sample_at(self, eta: float, round_: int) -> None:
        self.notify(CellProgress(1.0, "evaluating", f"round {round_}, eta {eta:g}"))
        further = dataclasses.replace(self.evaluator, eta=eta, path_kl_images=0, augmented=())
        with self.stop.interruptible():
            evaluation = further.evaluate()
        record = SamplerRecord(
            eta=eta,
            round=round_,
            rewards=evaluation.rewards,
            diversity=evaluation.diversity,
            bad_images=evaluation.bad_images,
            sampling_images_per_second=evaluation.images_per_second,
        )
        store.append_jsonl(self.job.folder / "samplers.jsonl", record)
