"""One random generator per purpose, derived from a seed.

No code of the project draws from a global generator; what draws from one purpose cannot disturb
another, so evaluation never changes training and a result does not depend on the batch size.
"""

from __future__ import annotations

import hashlib
import json

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """63-bit seed out of SHA-256 of the seed and the purpose's words."""
    digest = hashlib.sha256(json.dumps([seed, *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. ``generator(0, "rollout", round, prompt, image)``.

    CPU noise is the same on every device it is moved to.
    """
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
