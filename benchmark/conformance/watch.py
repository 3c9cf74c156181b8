"""Watches what a method does to a policy: what it samples, revisits and steps on."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from diffusion.kernel import log_density, transition
from diffusion.policy import Policy
from diffusion.randomness import generator


class Watch:
    """Inside the context: noise predictions of the policy and steps of optimizers on it.

    A *revisit* is a noise prediction, with gradient and before the round's first optimizer step,
    of a state that was predicted before. If weights, batches and precision change nothing, it is
    the same prediction, and the importance ratio of the first update is 1.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.log_ratio = 0.0
        """Largest |change of log p(x_s | x_t)| of a revisit, mean over dimensions, for an x_s of
        the first prediction's density."""
        self.revisits = 0
        """Transitions revisited."""
        self.revisited_steps: set[int] = set()
        self.second: set[bytes] = set()
        """The distinct latents of the second step: one a trajectory, also where x_T is shared."""
        self.gradients: list[list[torch.Tensor]] = []
        """Gradients of the policy's parameters at each optimizer step."""
        self._first: dict[tuple[str, int, bytes, bytes], torch.Tensor] = {}
        self._stepped = False

    def new_round(self) -> None:
        """The next optimizer step is a round's first."""
        self._stepped = False

    def __enter__(self) -> Watch:
        for name in ("predict_noise", "predict_conditional_noise"):
            self._wrap(name)
        self._hook = register_optimizer_step_pre_hook(self._before_step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hook.remove()
        for name in ("predict_noise", "predict_conditional_noise"):
            delattr(self.policy, name)

    def _wrap(self, name: str) -> None:
        original = getattr(self.policy, name)

        def predict(latents: torch.Tensor, step: torch.Tensor, conditioning: Any) -> Any:
            prediction = original(latents, step, conditioning)
            noise = prediction if name != "predict_noise" else prediction.guided
            self._see(name, latents, step, conditioning.conditional, noise)
            return prediction

        setattr(self.policy, name, predict)

    @torch.no_grad()
    def _see(
        self,
        name: str,
        latents: torch.Tensor,
        step: torch.Tensor,
        states: torch.Tensor,
        noise: torch.Tensor,
    ) -> None:
        compared = noise.requires_grad and not self._stepped
        for row, index in enumerate(step.tolist()):
            key = (name, index, _bytes(latents[row]), _bytes(states[row]))
            if index == 1:
                self.second.add(key[2])
            first = self._first.setdefault(key, noise[row : row + 1].detach().clone())
            if compared:
                self._compare(index, latents[row : row + 1], first, noise[row : row + 1])

    def _compare(
        self, index: int, latents: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> None:
        step = torch.tensor([index])
        eta = self.policy.eta or 1.0
        before, now = (
            transition(self.policy.schedule, step, latents, noise, eta) for noise in (first, second)
        )
        x_s = before.sample(torch.randn(before.mean.shape, generator=generator(index, "x_s")))
        x_s = x_s.to(self.policy.dtype)
        change = log_density(x_s, now, "mean") - log_density(x_s, before, "mean")
        self.log_ratio = max(self.log_ratio, float(change.abs()))
        self.revisits += 1
        self.revisited_steps.add(index)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        own = {id(parameter) for parameter in self.policy.parameters()}
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        if any(id(parameter) in own for parameter in stepped):
            self._stepped = True
            self.gradients.append(
                [
                    torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
                    for p in self.policy.parameters()
                ]
            )


def _bytes(values: torch.Tensor) -> bytes:
    return values.detach().float().cpu().numpy().tobytes()
