"""The end of a training that has left the numbers."""

from __future__ import annotations


class Diverged(RuntimeError):
    """The policy, its gradient or its images are not finite any more; nothing can be learned on."""
