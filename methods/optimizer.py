"""AdamW with a clip of the gradient norm, as every release of the methods here trains.

Two things the releases lack can be asked for, both against the noise that a constant rate leaves
in the weights: a rate that falls over training, and an average of the weights to evaluate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from diffusion.divergence import Diverged
from diffusion.ledger import Ledger
from methods import processes

Decay = Annotated[
    Literal["constant", "cosine"],
    Field(
        description="Learning rates over the rounds: 'constant', as released, or half a cosine "
        "down to a hundredth. A method that is to reach a distribution, not only a high reward, "
        "needs the second: noise of the gradient keeps a constant rate from settling.",
    ),
]
WeightAverage = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Decay of an exponential average of the weights, taken at each optimizer step "
        "and used in evaluation, never in sampling the rounds. 0, none, as released.",
    ),
]
LEAST_SHARE = 0.01
"""Of the learning rate, at the end of a cosine."""


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
        decay: str = "constant",
        average: float = 0.0,
    ) -> None:
        self.ledger = ledger
        self.parameters = list(parameters)
        self.learning_rate, self.gradient_clip = learning_rate, gradient_clip
        self.decay, self.average = decay, average
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=learning_rate, weight_decay=weight_decay, eps=1e-8
        )
        self.steps = 0
        self.mean = [p.detach().clone() for p in self.parameters] if average else []

    def set_progress(self, share: float) -> None:
        """Sets the learning rate for where training stands, ``share`` being 0 at its start."""
        if self.decay == "cosine":
            falling = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
            rate = self.learning_rate * (LEAST_SHARE + (1 - LEAST_SHARE) * falling)
            for group in self.adamw.param_groups:
                group["lr"] = rate

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of ``loss`` to those of all it depends on, these parameters or not."""
        with self.ledger.backward():
            loss.backward()

    def step(self) -> float:
        """Clips, steps and clears the gradients, those of all processes added up; returns their
        norm before the clip.

        Raises ``Diverged`` on a gradient that is not finite, leaving the parameters as they were.
        """
        with self.ledger.phase("optimizer"):
            processes.sum_gradients(self.parameters)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.gradient_clip)
            if not norm.isfinite():
                raise Diverged(f"the gradient is not finite: its norm is {float(norm)}")
            self.adamw.step()
            self.adamw.zero_grad(set_to_none=True)
            self._average()
            return float(norm)

    @torch.no_grad()
    def _average(self) -> None:
        self.steps += 1
        # A short history first, so that the untrained weights do not linger.
        kept = min(self.average, self.steps / (self.steps + 9))
        if self.average:
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - kept)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights inside, where there are any."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self._set(self.mean)
        try:
            yield
        finally:
            self._set(trained)

    @torch.no_grad()
    def _set(self, values: list[torch.Tensor]) -> None:
        if self.average:
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """A copy of AdamW's moments and step counts, and of the averaged weights."""
        state = copy.deepcopy(self.adamw.state_dict())
        if self.average:
            state |= {"mean": [mean.clone() for mean in self.mean], "steps": self.steps}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        state = dict(state)
        self.mean = [mean.clone() for mean in state.pop("mean", self.mean)]
        self.steps = int(state.pop("steps", self.steps))
        self.adamw.load_state_dict(state)
