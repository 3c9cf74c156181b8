"""Human Preference Score v2.1: CLIP ViT-H/14, fitted to people's rankings of generated pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.clip import H14, ClipFile, load_clip
from rewards.networks.preprocessing import in_batches, padded


@register
class HpsV21(Reward):
    """The cosine of picture and prompt; tables of the benchmark have 100 times as much.

    Numbers of v2.0 and v2.1 do not compare. ``clip`` is a file in place of the released one.
    ``antialias=False`` resizes as torchvision before 0.17 did by default, and most likely the
    published tables with it. Raises :class:`rewards.scorer.MissingWeights` and
    :class:`rewards.scorer.DamagedWeights`.
    """

    name = "hpsv2.1"
    version = "1"
    unit = "cosine"
    range = (-1.0, 1.0)
    differentiable = True
    source = "Wu et al., Human Preference Score v2, arXiv 2306.09341; v2.1"
    needs_prompt = True
    weights = ("hpsv2.1",)

    def __init__(self, clip: ClipFile | None = None, antialias: bool = True) -> None:
        self.clip = clip or ClipFile(weights.only_path("hpsv2.1"), H14)
        self.antialias = antialias
        resized = "antialiased" if antialias else "not antialiased"
        self.version = f"1 ({weights.tag(self.clip.path)}, {resized})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, images.device)
        return clip.cosine(padded(images, clip.size, antialias=self.antialias), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return in_batches(self.score, images, prompts)
