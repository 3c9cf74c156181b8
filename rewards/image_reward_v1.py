"""ImageReward v1.0: BLIP, fitted to people's rankings of pictures of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.blip import load_image_reward
from rewards.networks.preprocessing import Cropped, in_batches

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the network's scores on its training data; what it gives is standardised by them."""


@register
class ImageRewardV1(Reward):
    """How much people like a picture for its prompt, about standard normal.

    ``file`` and ``vocabulary`` are in place of the released ones. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "image_reward_v1"
    version = "1"
    unit = "standard deviations"
    range = (None, None)
    differentiable = True
    source = "Xu et al., ImageReward, arXiv 2304.05977; v1.0"
    needs_prompt = True
    weights = ("image-reward", "bert-vocabulary")
    path_difference = 0.05

    def __init__(self, file: Path | None = None, vocabulary: Path | None = None) -> None:
        self.file = file or weights.only_path("image-reward")
        self.vocabulary = vocabulary or weights.only_path("bert-vocabulary")
        self.version = f"1 ({weights.tag(self.file, self.vocabulary)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_image_reward(self.file, self.vocabulary, images.device)
        return self._of_pixels(Cropped(model.size).differentiable(images), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_image_reward(self.file, self.vocabulary, images.device)
        prepare = Cropped(model.size).reference
        return in_batches(lambda x, of: self._of_pixels(prepare(x), of), images, prompts)

    def _of_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_image_reward(self.file, self.vocabulary, pixels.device)
        return (model.score(pixels, prompts) - MEAN) / DEVIATION
