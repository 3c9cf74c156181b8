"""What alignment papers report as CLIP score: the cosine by CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.clip import L14, ClipFile, load_clip
from rewards.networks.preprocessing import Cropped, in_batches


@register
class ClipL14(Reward):
    """Cosine of picture and prompt; no prefix, no scale, no clipping.

    ``clip`` is a file in place of the released one. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "clip_l14"
    version = "1"
    unit = "cosine"
    range = (-1.0, 1.0)
    differentiable = True
    source = "Radford et al., CLIP, arXiv 2103.00020; as ImageReward and Adjoint Matching report it"
    needs_prompt = True
    weights = ("clip-l14",)
    path_difference = 0.01

    def __init__(self, clip: ClipFile | None = None) -> None:
        self.clip = clip or ClipFile(weights.only_path("clip-l14"), L14)
        self.version = f"1 ({weights.tag(self.clip.path)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, images.device)
        return self._of_pixels(Cropped(clip.size).differentiable(images), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        prepare = Cropped(load_clip(self.clip, images.device).size).reference
        return in_batches(lambda x, of: self._of_pixels(prepare(x), of), images, prompts)

    def _of_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return load_clip(self.clip, pixels.device).cosine(pixels, prompts)
