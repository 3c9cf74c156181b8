"""Evaluation on test and validation prompts, from the same noise for every method and checkpoint.

The noise of an image is decided by (evaluation seed, prompt text, image index) alone, so images of
different methods pair up, and nothing of training is consumed: neither its generators nor, the
seconds of the phase ``evaluation`` apart, its ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.augmentations import AUGMENTATIONS
from benchmark.encoders import Encoder
from diffusion.divergence import Diverged
from diffusion.path_kl import PathKl
from diffusion.policy import Policy
from diffusion.randomness import generator
from diffusion.rollout import sample
from results.diversity import pairwise_cosine_distance
from results.image_statistics import image_statistics

Score = Callable[[Tensor, list[str]], Tensor]


Values = list[list[float]]
"""``[prompts][images]``."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found."""

    images: Tensor
    """``[prompts, images, 3, H, W]`` in [0, 1], on the CPU; points ``[prompts, images, 2]``."""
    rewards: dict[str, Values]
    """Reward name to values; NaN for an image that is not finite."""
    features: dict[str, Tensor]
    """Encoder name to ``[prompts, images, width]``, on the CPU; NaN likewise."""
    diversity: dict[str, list[float]]
    """Encoder name to mean pairwise cosine distance of each prompt's images."""
    bad_images: dict[str, int]
    """``non_finite``, ``black`` and otherwise ``constant`` images; of points ``non_finite``."""
    image_statistics: dict[str, Values]
    """By name in ``results.image_statistics``; empty for points."""
    path_kl: Values
    """Nats by prompt, of the first images of each; empty if not measured."""
    augmented: dict[str, dict[str, Values]]
    """Reward name to name of an augmentation to the values after it; empty if not measured."""
    images_per_second: float
    """Sampled and decoded, candidates included, ``path_kl`` not."""

    @property
    def non_finite(self) -> int:
        """Images that are not finite."""
        return self.bad_images["non_finite"]

    def require_finite(self) -> None:
        """Raise ``Diverged`` if an image is not finite."""
        _require_finite(self.non_finite, self.images.shape[:2].numel())


@dataclass(frozen=True)
class Evaluator:
    """Samples and scores the images of one policy on test or validation prompts."""

    policy: Policy
    prompts: Sequence[str]
    images_per_prompt: int
    seed: int
    """Evaluation seed of the suite, the same for every cell."""
    batch_size: int
    rewards: Mapping[str, Score]
    encoders: Mapping[str, Encoder]
    path_kl_images: int = 0
    """Images of each prompt whose divergence from the base model is measured."""
    eta: float | None = None
    """Noise of the sampler, the policy's own by default; the initial noise is the same for all."""
    augmented: Sequence[str] = ()
    """Rewards that score the images after every small augmentation too."""

    def evaluate(self) -> Evaluation:
        """One image for each (prompt, image index), all scored.

        Images that are not finite are counted, and their scores are NaN.
        """
        ledger = self.policy.ledger
        with ledger.phase("evaluation"), ledger.suspended():
            started = time.perf_counter()
            watches = self._watches()
            images = self._sample(self._generators(), watches)
            rate = len(images) / (time.perf_counter() - started)
            nats = torch.cat([watch.nats() for watch in watches]) if watches else torch.empty(0)
            path_kl = nats.reshape(len(self.prompts), -1).tolist() if len(nats) else []
            return self._score(images, rate, path_kl)

    def reward_values(self, name: str) -> Values:
        """One reward alone, of the images that :meth:`evaluate` would score.

        NaN for an image that is not finite.
        """
        ledger = self.policy.ledger
        with ledger.phase("evaluation"), ledger.suspended(), torch.no_grad():
            images = self._sample(self._generators())
            finite = _finite(images)
            safe = torch.where(_beside(finite, images), images, 0.0)
            values = torch.where(finite, self._values(safe, self.rewards[name]), torch.nan)
        return self._by_prompt(values)

    def _watches(self) -> list[PathKl]:
        """One for each batch of sampling; none if no divergence is measured."""
        if not self.path_kl_images:
            return []
        image = torch.arange(self.images_per_prompt).repeat(len(self.prompts))
        return [
            PathKl(self.policy, part < self.path_kl_images, self.eta)
            for part in image.split(self.batch_size)
        ]

    def evaluate_best(self, candidates: int, select: Score, cell_seed: int) -> Evaluation:
        """The best by ``select`` of so many candidates for each (prompt, image index).

        Raises ``Diverged`` for a candidate that is not finite, which nothing can choose by.

        Candidate 0 starts from the noise that every method starts from, the others from noise of
        their own that differs from one ``cell_seed`` to another. What is sampled and scored to
        choose is the method's cost, and counted; the scoring of what was chosen is not.
        """
        ledger = self.policy.ledger
        with ledger.phase("evaluation"):
            started = time.perf_counter()
            best, highest = self._candidate(0, cell_seed, select)
            for candidate in range(1, candidates):
                images, values = self._candidate(candidate, cell_seed, select)
                better = values > highest
                best[better], highest[better] = images[better], values[better]
            rate = candidates * len(best) / (time.perf_counter() - started)
            with ledger.suspended():
                return self._score(best, rate, [])

    def _candidate(self, candidate: int, cell_seed: int, select: Score) -> tuple[Tensor, Tensor]:
        """Images of one candidate for each (prompt, image index), and their values ``[n]``."""
        further = ("candidate", candidate, cell_seed) if candidate else ()
        images = self._sample(self._generators(*further))
        _require_finite(int((~_finite(images)).sum()), len(images))
        return images, self._values(images, select)

    def _values(self, images: Tensor, score: Score) -> Tensor:
        """One score's values ``[n]`` of images ``[n, 3, H, W]`` or points, on the CPU."""
        prompts = self._prompts()
        values = [
            score(part, prompts[start : start + len(part)]).cpu()
            for start, part in self._batches(images)
        ]
        return torch.cat(values)

    def _prompts(self) -> list[str]:
        return [prompt for prompt in self.prompts for _ in range(self.images_per_prompt)]

    def _generators(self, *further: str | int) -> list[torch.Generator]:
        """One for each (prompt, image); ``further`` words name a purpose other than sampling."""
        return [
            generator(self.seed, "evaluation", prompt, image, *further)
            for prompt in self.prompts
            for image in range(self.images_per_prompt)
        ]

    @torch.no_grad()
    def _sample(self, generators: list[torch.Generator], watches: Sequence[PathKl] = ()) -> Tensor:
        """Images ``[prompts * images, 3, H, W]``, or points, of the policy, on the CPU;
        ``watches`` see the steps of a batch each."""
        prompts = self._prompts()
        parts = []
        for index, start in enumerate(range(0, len(prompts), self.batch_size)):
            part = slice(start, start + self.batch_size)
            latents = sample(
                self.policy,
                prompts[part],
                generators[part],
                eta=self.eta,
                batch_size=self.batch_size,
                watch=watches[index] if watches else None,
            )
            parts.append(self.policy.decode(latents).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def _score(self, images: Tensor, images_per_second: float, path_kl: Values) -> Evaluation:
        prompts = self._prompts()
        shape = (len(self.prompts), self.images_per_prompt)
        finite = _finite(images)
        values: dict[str, list[Tensor]] = {name: [] for name in self.rewards}
        features: dict[str, list[Tensor]] = {name: [] for name in self.encoders}
        statistics: list[dict[str, Tensor]] = []
        for start, part in self._batches(images):
            kept = finite[start : start + len(part)]
            safe = torch.where(_beside(kept, part).to(part.device), part, 0.0)
            for name, reward in self.rewards.items():
                scores = reward(safe, prompts[start : start + len(part)]).cpu()
                values[name].append(torch.where(kept, scores, torch.nan))
            for name, encoder in self.encoders.items():
                vectors = encoder(safe).float().cpu()
                features[name].append(torch.where(kept[:, None], vectors, torch.nan))
            if self.policy.output == "image":
                found = image_statistics(part.double().cpu().numpy())
                statistics.append({name: torch.from_numpy(v) for name, v in found.items()})
        gathered = {name: torch.cat(parts).unflatten(0, shape) for name, parts in features.items()}
        return Evaluation(
            images=images.unflatten(0, shape),
            rewards={name: torch.cat(v).reshape(shape).tolist() for name, v in values.items()},
            features=gathered,
            diversity={name: pairwise_cosine_distance(f) for name, f in gathered.items()},
            bad_images=_count_bad(images, finite),
            image_statistics={
                name: torch.cat([part[name] for part in statistics]).reshape(shape).tolist()
                for name in (statistics[0] if statistics else ())
            },
            path_kl=path_kl,
            augmented=self._augmented(images, finite),
            images_per_second=images_per_second,
        )

    def _augmented(self, images: Tensor, finite: Tensor) -> dict[str, dict[str, Values]]:
        """Scores by the rewards ``augmented`` after each augmentation; NaN where not finite."""
        found: dict[str, dict[str, Values]] = {name: {} for name in self.augmented}
        safe = torch.where(_beside(finite, images), images, 0.0)
        for change, augment in AUGMENTATIONS.items() if found else ():
            generators = self._generators("augmentation", change)
            parts = [
                augment(part, generators[start : start + len(part)]).cpu()
                for start, part in self._batches(safe)
            ]
            for name in found:
                values = self._values(torch.cat(parts), self.rewards[name])
                values = torch.where(finite, values, torch.nan)
                found[name][change] = self._by_prompt(values)
        return found

    def _by_prompt(self, values: Tensor) -> Values:
        """Values ``[prompts * images]`` as ``[prompts][images]``."""
        found: Values = values.reshape(len(self.prompts), self.images_per_prompt).tolist()
        return found

    def _batches(self, images: Tensor) -> list[tuple[int, Tensor]]:
        """Offset and images, on the policy's device, of each batch."""
        starts = range(0, len(images), self.batch_size)
        device = self.policy.device
        return [(start, images[start : start + self.batch_size].to(device)) for start in starts]


def _finite(images: Tensor) -> Tensor:
    """Whether each image ``[n, 3, H, W]``, or point ``[n, 2]``, is finite, bool ``[n]``."""
    return images.isfinite().flatten(1).all(dim=1)


def _beside(flags: Tensor, images: Tensor) -> Tensor:
    """One flag an image, ``[n]``, with as many dimensions as the images."""
    return flags.view(-1, *[1] * (images.ndim - 1))


def _require_finite(bad: int, images: int) -> None:
    if bad:
        raise Diverged(f"diverged: {bad} of {images} evaluation images are not finite")


def _count_bad(images: Tensor, finite: Tensor) -> dict[str, int]:
    """Images ``[n, 3, H, W]`` that are not finite, or black or of another single colour once
    saved in 8 bits; points ``[n, 2]`` that are not finite."""
    if images.ndim == 2:
        return {"non_finite": int((~finite).sum())}
    low, high = (images[finite] * 255).round().flatten(2).aminmax(dim=2)
    constant = (low == high).all(dim=1)
    black = (high == 0).all(dim=1)
    return {
        "non_finite": int((~finite).sum()),
        "black": int(black.sum()),
        "constant": int((constant & ~black).sum()),
    }


def evaluation_rounds(rounds: int, times: int) -> list[int]:
    """Rounds (from 1) after which to evaluate: ``times`` of them evenly, the last one included."""
    if rounds < 1:
        return []
    return sorted({-(-rounds * k // times) for k in range(1, times + 1)})
