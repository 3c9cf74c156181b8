"""How often training shows each picture: the prompts are animals, so animals first."""

from __future__ import annotations

from collections import Counter

import torch

from diffusion.emoji.catalogue import COMMON_ANIMALS, Picture

COMMON_ANIMALS_SHARE = 0.5
GROUP_SHARES = {
    "animals": 0.18,
    "food": 0.10,
    "faces": 0.06,
    "places": 0.06,
    "activities": 0.05,
    "objects": 0.05,
}
"""Share of each group's other pictures."""


def animals_first(pictures: list[Picture]) -> torch.Tensor:
    """Weights ``[n]``: half for the 45 common animals, each alike, the rest by group."""
    weights = torch.zeros(len(pictures))
    common = [picture.subject in COMMON_ANIMALS for picture in pictures]
    count = Counter(p.subject for p, chosen in zip(pictures, common, strict=True) if chosen)
    for index, picture in enumerate(pictures):
        if common[index]:
            weights[index] = COMMON_ANIMALS_SHARE / len(count) / count[picture.subject]
    for group, share in GROUP_SHARES.items():
        members = [i for i, p in enumerate(pictures) if p.group == group and not common[i]]
        if members:
            weights[members] = share / len(members)
    return weights


def all_alike(pictures: list[Picture]) -> torch.Tensor:
    """Equal weights ``[n]``."""
    return torch.ones(len(pictures))
