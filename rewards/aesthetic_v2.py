"""LAION's aesthetic predictor V2: a head on CLIP ViT-L/14, which DDPO and AlignProp train on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.clip import L14, ClipFile, load_clip, read_state
from rewards.networks.head import AffineHead
from rewards.networks.preprocessing import Cropped, in_batches
from rewards.scorer import DamagedWeights


@functools.cache
def load_head(path: Path, device: torch.device) -> AffineHead:
    """The head in a file, loaded once a process; raises :class:`DamagedWeights`."""
    try:
        state = read_state(path)
        with torch.random.fork_rng(devices=[]):
            head = AffineHead()
        head.load_state_dict(state)
    except Exception as error:  # whatever torch makes of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load the aesthetic head in {path}: {reason}") from error
    return head.float().eval().requires_grad_(False).to(device)


@register
class AestheticV2(Reward):
    """How well people like a picture, 1 to 10 in the data that it was fitted to.

    By the released weights 5.2366 + 17.9956 cos(e, w), w a fixed direction of CLIP's space.

    ``clip`` and ``head`` are files in place of the released ones. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "aesthetic_v2"
    version = "1"
    unit = "points"
    range = (-12.760, 23.233)  # of unit embeddings; pictures reach about 1 to 10
    differentiable = True
    source = "Schuhmann et al., LAION-5B, arXiv 2210.08402; sac+logos+ava1-l14-linearMSE"
    weights = ("aesthetic-head", "clip-l14")
    path_difference = 0.01

    def __init__(self, clip: ClipFile | None = None, head: Path | None = None) -> None:
        self.clip = clip or ClipFile(weights.only_path("clip-l14"), L14)
        self.head = head or weights.only_path("aesthetic-head")
        self.version = f"1 ({weights.tag(self.head, self.clip.path)})"
        direction, constant = load_head(self.head, torch.device("cpu")).folded()
        length = float(direction.norm())
        self.range = (constant - length, constant + length)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        clip = load_clip(self.clip, images.device)
        return self._of_pixels(Cropped(clip.size).differentiable(images))

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        prepare = Cropped(load_clip(self.clip, images.device).size).reference
        return in_batches(lambda part, _: self._of_pixels(prepare(part)), images, prompts)

    def _of_pixels(self, pixels: Tensor) -> Tensor:
        clip, head = load_clip(self.clip, pixels.device), load_head(self.head, pixels.device)
        return head(clip.image_embedding(pixels))
