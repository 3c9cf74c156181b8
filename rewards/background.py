"""Whether the background has the colour that the prompt asks for, read off the picture's border."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from rewards import register
from rewards.interface import Reward, RewardInputError

BORDER = 5
"""Width of the border in pixels; no emoji of the training pictures reaches into it."""

COLOURS = {
    "white": (250, 250, 250),
    "black": (24, 24, 24),
    "red": (214, 58, 52),
    "yellow": (247, 209, 76),
    "green": (76, 168, 92),
    "blue": (66, 120, 214),
    "purple": (134, 84, 178),
    "pink": (245, 160, 190),
}
"""Background word to its RGB colour, 0-255."""

_ASKED = re.compile(r"\bon an? (\w+) background\b", re.IGNORECASE)


@register
class Background(Reward):
    """Share of the border pixels whose nearest named colour is the one the prompt asks for.

    Nearest is by Euclidean distance in RGB among the eight of :data:`COLOURS`.
    """

    name = "background"
    version = "1"
    unit = "share of border pixels"
    range = (0.0, 1.0)
    differentiable = False
    source = "this project: a rule on the 5-pixel border"
    needs_prompt = True

    def check_prompts(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            asked_colour(prompt)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        names = list(COLOURS)
        asked = torch.tensor([names.index(asked_colour(prompt)) for prompt in prompts])
        matches = nearest_colours(border_pixels(images)) == asked[:, None].to(images.device)
        return matches.float().mean(1)


def asked_colour(prompt: str) -> str:
    """The colour word in ``... on a blue background``.

    Raises :class:`rewards.interface.RewardInputError` if the prompt names no background, or one
    that is not in :data:`COLOURS`.
    """
    found = _ASKED.search(prompt)
    known = ", ".join(COLOURS)
    if found is None:
        raise RewardInputError(
            f"reward 'background': prompt {prompt!r} asks for no background; it must say "
            f"'on a COLOUR background' with one of {known}"
        )
    colour = found[1].lower()
    if colour not in COLOURS:
        nearest = difflib.get_close_matches(colour, COLOURS, n=1, cutoff=0.0)[0]
        raise RewardInputError(
            f"reward 'background': prompt {prompt!r} asks for {colour!r}; the nearest name is "
            f"{nearest!r}; known: {known}"
        )
    return colour


def border_pixels(images: Tensor) -> Tensor:
    """The outermost :data:`BORDER` pixels of images ``[n, 3, H, W]``: ``[n, 3, pixels]``."""
    inside = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return images[:, :, ~inside]


def nearest_colours(pixels: Tensor) -> Tensor:
    """Index into :data:`COLOURS` of the nearest one of each pixel ``[n, 3, pixels]`` in [0, 1]."""
    palette = torch.tensor(list(COLOURS.values()), dtype=pixels.dtype, device=pixels.device) / 255
    # Differences rather than torch.cdist, whose matrix product loses digits.
    difference = pixels.movedim(1, -1).unsqueeze(-2) - palette
    return difference.square().sum(-1).argmin(-1)
