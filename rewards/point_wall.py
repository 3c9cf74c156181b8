"""What all rewards on points share: a wall that keeps exp(beta r) a distribution.

A bounded reward alone would leave exp(beta r) without a normaliser, since the plane is infinite.
"""

from __future__ import annotations

from torch import Tensor

RADIUS, STIFFNESS = 1.5, 2.0


def wall(points: Tensor) -> Tensor:
    """``STIFFNESS max(|x| - RADIUS, 0)^2`` of points ``[n, 2]``, ``[n]``: zero inside the disc."""
    return STIFFNESS * (points.norm(dim=1) - RADIUS).clamp(min=0).square()
