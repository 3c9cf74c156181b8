"""The contract that every reward keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor


class RewardInputError(ValueError):
    """Images or prompts that a reward cannot score; the message says what is wrong with them."""


class NotDifferentiable(TypeError):
    """A gradient was asked of a reward that has none."""


class Reward:
    """A score of images under their prompts, to be maximised.

    Subclasses declare the attributes below and implement :meth:`score`. Both ways to call a reward
    take images as floats ``[n, 3, H, W]`` in [0, 1] (or, where ``scores`` says "point", points of
    the plane as floats ``[n, 2]``, which are not rounded) and one prompt an image, raise
    :class:`RewardInputError` for anything else, compute in fp32 whatever autocast is on, and leave
    their inputs and the global random state as they were.

    * ``reward(images, prompts)``, the reference: the pictures as they would be saved, in 8 bits a
      channel; no gradient.
    * ``reward.differentiable_score(images, prompts)``: the same formula on the unrounded values,
      with gradients to ``images``. Where a release prepares its pictures in a way that has no
      gradient, :meth:`reference_score` is it, and ``path_difference`` states what that changes.
    """

    name: str
    """What configuration and results call it."""
    version: str
    """Changes whenever the numbers do."""
    unit: str
    range: tuple[float | None, float | None]
    """Lowest and highest value there can be; ``None`` where there is no bound."""
    higher_is_better: ClassVar[Literal[True]] = True
    """Direction, the same for all: a quantity to be made small enters with a minus sign."""
    differentiable: bool
    """Whether there are useful gradients from the score to the images."""
    source: str
    """Where the definition comes from."""
    scores: Literal["image", "point"] = "image"
    """What is scored; a reward goes together with the models that make it."""
    needs_prompt: bool = False
    """Whether the score depends on the prompt."""
    weights: ClassVar[tuple[str, ...]] = ()
    """Names in ``rewards/weights.toml`` of the networks it needs and the program does not bring."""
    extra: ClassVar[str] = ""
    """Extra of the package (``pip install -e '.[extra]'``) that brings what it needs."""
    path_difference: ClassVar[float] = 0.0
    """Most that the two paths differ on a picture of 8 bits, over 1 + |score|; above 0 where the
    release's preprocessing rounds to 8 bits once more, and gradients cannot."""

    @classmethod
    def unavailable(cls) -> str:
        """Why it cannot be used on this machine, such as weights that are not there, with the
        command that mends it; empty if it can."""
        from rewards import weights

        return weights.missing(cls.weights, cls.name)

    @classmethod
    def optional(cls) -> bool:
        """Whether it needs what the program does not bring; suites have to ask for it by name."""
        return bool(cls.weights or cls.extra)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score ``[n]`` of valid images ``[n, 3, H, W]``; computes in their dtype and device."""
        raise NotImplementedError

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As :meth:`score`, of pictures in 8 bits; another one where the release prepares them in
        a way that has no gradient."""
        return self.score(images, prompts)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises :class:`RewardInputError` for the first prompt this reward cannot judge.

        Called before a run starts, so that no cell finds out after an hour.
        """

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Reference score, fp32 ``[n]`` on the device of the images, without gradient."""
        with torch.no_grad():
            images = self._checked(images, prompts)
            if self.scores == "point":
                return self._fp32_score(self.score, images.float(), prompts)
            saved = to_uint8(images).float() / 255
            return self._fp32_score(self.reference_score, saved, prompts)

    def differentiable_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score, fp32 ``[n]``, with gradients to ``images``.

        Raises :class:`NotDifferentiable` where the reward has no gradient.
        """
        if not self.differentiable:
            raise NotDifferentiable(f"reward {self.name!r} has no gradient")
        checked = self._checked(images, prompts).float()
        return self._fp32_score(self.score, checked, prompts)

    def _fp32_score(
        self,
        formula: Callable[[Tensor, Sequence[str]], Tensor],
        images: Tensor,
        prompts: Sequence[str],
    ) -> Tensor:
        # Rewards differ by less between two images than bf16 resolves.
        with torch.autocast(images.device.type, enabled=False):
            scores = formula(images, prompts)
        if not isinstance(scores, Tensor):
            kind = type(scores).__name__
            raise TypeError(f"reward {self.name!r} returned {kind}, not a tensor")
        scores = scores.float()
        if scores.shape != images.shape[:1]:
            raise RuntimeError(
                f"reward {self.name!r} returned shape {list(scores.shape)} for {len(images)} images"
            )
        return scores

    def _checked(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        problem_of = _point_problem if self.scores == "point" else _image_problem
        problem = problem_of(images) or _prompt_problem(prompts, len(images))
        if problem:
            raise RewardInputError(f"reward {self.name!r}: {problem}")
        return images


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as saved in 8 bits: uint8, rounded to nearest, then clamped."""
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


def _image_problem(images: Tensor) -> str | None:
    if not isinstance(images, Tensor):
        return f"images must be a tensor [n, 3, H, W], not {type(images).__name__}"
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        return f"images must have shape [n, 3, H, W], none of them 0, not {list(images.shape)}"
    if not images.is_floating_point():
        return f"images must be floats in [0, 1], not {images.dtype}"
    finite = images.detach().isfinite().flatten(1).all(dim=1)
    if not finite.all():
        return f"{int((~finite).sum())} of {len(images)} images hold NaN or infinite values"
    low, high = images.detach().aminmax()
    if low < 0 or high > 1:
        return f"images must lie in [0, 1], not [{low.item():.4g}, {high.item():.4g}]"
    return None


def _point_problem(points: Tensor) -> str | None:
    if not isinstance(points, Tensor):
        return f"points must be a tensor [n, 2], not {type(points).__name__}"
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        return f"points must have shape [n, 2], n above 0, not {list(points.shape)}"
    if not points.is_floating_point():
        return f"points must be floats, not {points.dtype}"
    finite = points.detach().isfinite().all(dim=1)
    if not finite.all():
        return f"{int((~finite).sum())} of {len(points)} points hold NaN or infinite values"
    return None


def _prompt_problem(prompts: Sequence[str], n: int) -> str | None:
    if isinstance(prompts, str):
        return "prompts must be a list of strings, one an image, not one string"
    if len(prompts) != n:
        return f"{len(prompts)} prompts for {n} images; there must be one an image"
    wrong = [type(prompt).__name__ for prompt in prompts if not isinstance(prompt, str)]
    return f"prompts must be strings, not {wrong[0]}" if wrong else None
