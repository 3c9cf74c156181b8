"""CLIPScore as its authors define it, on CLIP ViT-B/32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.clip import B32, ClipFile, load_clip
from rewards.networks.preprocessing import Cropped, in_batches

PREFIX = "A photo depicts "
WEIGHT = 2.5


@register
class ClipScoreB32(Reward):
    """2.5 max(cos, 0) of the picture and "A photo depicts " with the prompt after it.

    ``clip`` is a file in place of the released one. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "clipscore_b32"
    version = "1"
    unit = "2.5 cosine"
    range = (0.0, WEIGHT)
    differentiable = True
    source = "Hessel et al., CLIPScore, arXiv 2104.08718"
    needs_prompt = True
    weights = ("clip-b32",)
    path_difference = 0.01

    def __init__(self, clip: ClipFile | None = None) -> None:
        self.clip = clip or ClipFile(weights.only_path("clip-b32"), B32)
        self.version = f"1 ({weights.tag(self.clip.path)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, images.device)
        return self._of_pixels(Cropped(clip.size).differentiable(images), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        prepare = Cropped(load_clip(self.clip, images.device).size).reference
        return in_batches(lambda x, of: self._of_pixels(prepare(x), of), images, prompts)

    def _of_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        texts = [PREFIX + prompt for prompt in prompts]
        cosine = load_clip(self.clip, pixels.device).cosine(pixels, texts)
        return WEIGHT * cosine.clamp(min=0)
