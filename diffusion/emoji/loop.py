"""The training loop that the three networks of the emoji model share.

Resumable after a kill: weights, averaged weights, optimiser and random state are written every
``checkpoint_seconds`` to a temporary name and renamed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Loss = Callable[[torch.Generator], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""From the loop's generator to a loss and what is logged beside it, scalars all."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float
    warmup: int = 100
    decay_share: float = 0.3
    """Share of the steps, at the end, over which the learning rate falls linearly to zero."""
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    grad_clip: float = 1.0
    checkpoint_seconds: float = 120.0

    def rate(self, step: int) -> float:
        """Learning rate at a step (from 0)."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, left)


def train(
    modules: nn.ModuleDict, loss: Loss, schedule: Schedule, folder: Path, seed: int
) -> nn.ModuleDict:
    """Train ``modules`` in place and leave them holding the averaged weights.

    ``folder`` receives ``checkpoint.pt`` and ``log.jsonl``; a second call goes on from there.
    The generator that ``loss`` is given is on the device of the modules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    generator = torch.Generator(device := parameters[0].device).manual_seed(seed)
    ema = {name: value.clone() for name, value in modules.state_dict().items()}
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"].cpu())
        ema, step, seconds = state["ema"], state["step"], state["seconds"]
        print(f"{folder.name}: going on from step {step}", flush=True)

    def save() -> None:
        state = {
            "modules": modules.state_dict(),
            "ema": ema,
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
            "step": step,
            "seconds": seconds,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)

    running: dict[str, torch.Tensor] = {}
    last_save = time.monotonic()
    while step < schedule.steps:
        start = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        value, logged = loss(generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.grad_clip)
        optimizer.step()
        step += 1
        _update_average(ema, modules, min(schedule.ema_decay, step / (step + 10)))
        seconds += time.monotonic() - start
        for name, number in {"loss": value.detach(), **logged}.items():
            # Tensors until they are reported: reading one makes the program wait for a GPU.
            running[name] = running.get(name, number).lerp(number, 0.02)
        if step % 50 == 0 or step == schedule.steps:
            _report(folder, step, schedule.steps, seconds, running)
        if time.monotonic() - last_save > schedule.checkpoint_seconds:
            save()
            last_save = time.monotonic()
    save()
    modules.load_state_dict(ema)
    return modules


@torch.no_grad()
def _update_average(ema: dict[str, torch.Tensor], modules: nn.Module, decay: float) -> None:
    state = modules.state_dict()
    floating = [name for name, value in state.items() if value.is_floating_point()]
    # All at once: one by one they would be hundreds of small calls a step.
    get_ema_multi_avg_fn(decay)(
        [ema[name] for name in floating], [state[name] for name in floating], 0
    )
    for name in state.keys() - set(floating):
        ema[name].copy_(state[name])


def _report(
    folder: Path, step: int, steps: int, seconds: float, running: dict[str, torch.Tensor]
) -> None:
    means = {name: value.item() for name, value in running.items()}
    record = {"step": step, "seconds": round(seconds, 1), **means}
    with open(folder / "log.jsonl", "a") as log:
        log.write(json.dumps(record) + "\n")
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
    left = (steps - step) * seconds / max(step, 1) / 60
    print(f"{folder.name} {step}/{steps}  {numbers}  {left:.0f} min left", flush=True)
