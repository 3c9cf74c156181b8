"""PickScore v1: CLIP ViT-H/14, fitted to choices between two pictures of one prompt."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.clip import H14, ClipFile, load_clip
from rewards.networks.preprocessing import Cropped, in_batches


@register
class PickScoreV1(Reward):
    """The cosine of picture and prompt times the scale in the checkpoint, about 100.

    ``clip`` is a file in place of the released one. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "pickscore_v1"
    version = "1"
    unit = "scaled cosine"
    range = (-100.0, 100.0)
    differentiable = True
    source = "Kirstain et al., Pick-a-Pic, arXiv 2305.01569"
    needs_prompt = True
    weights = ("pickscore",)
    path_difference = 0.1

    def __init__(self, clip: ClipFile | None = None) -> None:
        self.clip = clip or ClipFile(weights.only_path("pickscore"), H14)
        self.version = f"1 ({weights.tag(self.clip.path)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, images.device)
        return self._of_pixels(Cropped(clip.size).differentiable(images), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        prepare = Cropped(load_clip(self.clip, images.device).size).reference
        return in_batches(lambda x, of: self._of_pixels(prepare(x), of), images, prompts)

    def _of_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, pixels.device)
        return clip.scale * clip.cosine(pixels, prompts)
