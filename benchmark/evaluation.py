"""Evaluation on held-out prompts, from the same noise for every method, checkpoint and cell.

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

from benchmark.encoders import Encoder
from diffusion.policy import Policy
from diffusion.randomness import generator
from diffusion.rollout import sample
from results.diversity import pairwise_cosine_distance

Score = Callable[[Tensor, list[str]], Tensor]


class Diverged(ValueError):
    """The policy's images are not finite any more."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found."""

    images: Tensor
    """``[prompts, images, 3, H, W]`` in [0, 1], on the CPU; points ``[prompts, images, 2]``."""
    rewards: dict[str, list[list[float]]]
    """Reward name to values ``[prompts][images]``."""
    features: dict[str, Tensor]
    """Encoder name to ``[prompts, images, width]``, on the CPU."""
    diversity: dict[str, list[float]]
    """Encoder name to mean pairwise cosine distance of each prompt's images."""
    constant: int
    """Images that are one colour all over."""
    images_per_second: float
    """Sampled and decoded, candidates included."""


@dataclass(frozen=True)
class Evaluator:
    """Samples and scores the evaluation images of one policy."""

    policy: Policy
    prompts: Sequence[str]
    images_per_prompt: int
    seed: int
    """Evaluation seed of the suite, the same for every cell."""
    batch_size: int
    rewards: Mapping[str, Score]
    encoders: Mapping[str, Encoder]

    def evaluate(self) -> Evaluation:
        """One image for each (prompt, image index), all scored; raises ``Diverged``."""
        ledger = self.policy.ledger
        with ledger.phase("evaluation"), ledger.suspended():
            started = time.perf_counter()
            images = self._sample(self._generators())
            return self._score(images, len(images) / (time.perf_counter() - started))

    def evaluate_best(self, candidates: int, select: Score, cell_seed: int) -> Evaluation:
        """The best by ``select`` of so many candidates for each (prompt, image index).

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
                return self._score(best, rate)

    def _candidate(self, candidate: int, cell_seed: int, select: Score) -> tuple[Tensor, Tensor]:
        """Images of one candidate for each (prompt, image index), and their values ``[n]``."""
        images = self._sample(self._generators(candidate, cell_seed))
        prompts = self._prompts()
        values = [
            select(part, prompts[start : start + len(part)]).cpu()
            for start, part in self._batches(images)
        ]
        return images, torch.cat(values)

    def _prompts(self) -> list[str]:
        return [prompt for prompt in self.prompts for _ in range(self.images_per_prompt)]

    def _generators(self, candidate: int = 0, cell_seed: int = 0) -> list[torch.Generator]:
        further = ("candidate", candidate, cell_seed) if candidate else ()
        return [
            generator(self.seed, "evaluation", prompt, image, *further)
            for prompt in self.prompts
            for image in range(self.images_per_prompt)
        ]

    @torch.no_grad()
    def _sample(self, generators: list[torch.Generator]) -> Tensor:
        """Images ``[prompts * images, 3, H, W]`` of the policy, on the CPU."""
        prompts = self._prompts()
        parts = []
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            latents = sample(
                self.policy, prompts[part], generators[part], batch_size=self.batch_size
            )
            parts.append(self.policy.decode(latents).cpu())
        images = torch.cat(parts)
        bad = int((~images.isfinite().flatten(1).all(dim=1)).sum())
        if bad:
            raise Diverged(f"diverged: {bad} of {len(images)} evaluation images are not finite")
        return images

    @torch.no_grad()
    def _score(self, images: Tensor, images_per_second: float) -> Evaluation:
        prompts = self._prompts()
        shape = (len(self.prompts), self.images_per_prompt)
        values: dict[str, list[Tensor]] = {name: [] for name in self.rewards}
        features: dict[str, list[Tensor]] = {name: [] for name in self.encoders}
        for start, part in self._batches(images):
            for name, reward in self.rewards.items():
                values[name].append(reward(part, prompts[start : start + len(part)]).cpu())
            for name, encoder in self.encoders.items():
                features[name].append(encoder(part).float().cpu())
        gathered = {name: torch.cat(parts).unflatten(0, shape) for name, parts in features.items()}
        return Evaluation(
            images=images.unflatten(0, shape),
            rewards={name: torch.cat(v).reshape(shape).tolist() for name, v in values.items()},
            features=gathered,
            diversity={name: pairwise_cosine_distance(f) for name, f in gathered.items()},
            constant=_count_constant(images),
            images_per_second=images_per_second,
        )

    def _batches(self, images: Tensor) -> list[tuple[int, Tensor]]:
        """Offset and images, on the policy's device, of each batch."""
        starts = range(0, len(images), self.batch_size)
        device = self.policy.device
        return [(start, images[start : start + self.batch_size].to(device)) for start in starts]


def _count_constant(images: Tensor) -> int:
    """Images ``[n, 3, H, W]`` that are one colour all over once saved in 8 bits; no point is."""
    if images.ndim == 2:
        return 0
    low, high = (images * 255).round().flatten(2).aminmax(dim=2)
    return int((low == high).all(dim=1).sum())


def evaluation_rounds(rounds: int, times: int) -> list[int]:
    """Rounds (from 1) after which to evaluate: ``times`` of them evenly, the last one included."""
    if rounds < 1:
        return []
    return sorted({-(-rounds * k // times) for k in range(1, times + 1)})
