"""AdamW with a clip of the gradient norm, as every release of the methods here trains."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from diffusion.ledger import Ledger
from methods import processes


class Optimizer:
    """AdamW (betas 0.9 and 0.999, epsilon 1e-8) over parameters whose gradients accumulate.

    Its two parts of an update are phases of the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        gradient_clip: float,
    ) -> None:
        self.ledger = ledger
        self.parameters = list(parameters)
        self.gradient_clip = gradient_clip
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=learning_rate, weight_decay=weight_decay, eps=1e-8
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of ``loss`` to those of all it depends on, these parameters or not."""
        with self.ledger.backward():
            loss.backward()

    def step(self) -> float:
        """Clips, steps and clears the gradients, those of all processes added up; returns their
        norm before the clip.

        Raises ``RuntimeError`` on a gradient that is not finite, leaving the parameters as they
        were.
        """
        with self.ledger.phase("optimizer"):
            processes.sum_gradients(self.parameters)
            norm = nn.utils.clip_grad_norm_(
                self.parameters, self.gradient_clip, error_if_nonfinite=True
            )
            self.adamw.step()
            self.adamw.zero_grad(set_to_none=True)
            return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """A copy of AdamW's moments and step counts."""
        return copy.deepcopy(self.adamw.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.adamw.load_state_dict(state)
