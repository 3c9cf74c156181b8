"""A trainer of TRL on a task's policy, driven a round at a time."""

from __future__ import annotations

import contextlib
import copy
import random
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.tracking import GeneralTracker
from torch.utils.checkpoint import set_checkpoint_early_stop

from diffusion.divergence import Diverged
from methods.interface import RewardFunction, Task
from methods.trl_adapter import PolicyPipeline

NEVER = 2**31
"""As TRL's ``save_freq``: it would save a checkpoint at every multiple."""


class UpdateLog(GeneralTracker):
    """What TRL logs of its updates, in the place of a logging service."""

    name = "updates"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[dict[str, float]] = []

    @property
    def tracker(self) -> list[dict[str, float]]:
        """The log itself."""
        return self.updates

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Keeps the numbers of an update; those of a round's rewards have no loss."""
        if "loss" in values:
            self.updates.append({name: torch.as_tensor(v).item() for name, v in values.items()})


class TrlTrainer:
    """``DDPOTrainer`` or ``AlignPropTrainer`` of TRL, with AdamW and accumulation of its own.

    ``options`` are those of its configuration beyond what follows from the task.
    """

    def __init__(
        self, kind: str, task: Task, reward: RewardFunction, options: Mapping[str, Any]
    ) -> None:
        self.task, self.reward = task, reward
        self.pipeline = PolicyPipeline(task.policy)
        self.log = UpdateLog()
        self.waiting: list[tuple[str, torch.Generator]] = []
        self.rewards: list[torch.Tensor] = []
        self.norms: list[float] = []
        self.log_ratios: list[float] = []
        self._largest = 0.0
        self.updates = 0
        cpu = task.policy.device.type == "cpu"
        PartialState(cpu=cpu)  # before TRL is imported: it logs through accelerate
        with warnings.catch_warnings(), global_generators(0):
            warnings.simplefilter("ignore", DeprecationWarning)  # it announces its removal
            self.trainer = self._build(kind, cpu, options)
        self.accumulation = self.trainer.accelerator.gradient_accumulation_steps
        self._clip = self.trainer.accelerator.clip_grad_norm_
        self.trainer.accelerator.clip_grad_norm_ = self._clip_recorded
        if kind == "DDPO":
            self._loss = self.trainer.loss
            self.trainer.loss = self._loss_recorded

    def _build(self, kind: str, cpu: bool, options: Mapping[str, Any]) -> Any:
        import trl

        policy = self.task.policy
        config = getattr(trl, f"{kind}Config")(
            exp_name="benchmark",
            log_with=self.log,
            accelerator_kwargs={"cpu": cpu},
            save_freq=NEVER,
            mixed_precision="no",
            allow_tf32=False,
            negative_prompts=None,
            sample_num_steps=policy.schedule.steps,
            sample_eta=policy.eta,
            sample_guidance_scale=policy.guidance_scale,
            **options,
        )
        return getattr(trl, f"{kind}Trainer")(
            config,
            self._score,
            self._next_prompt,
            self.pipeline,
            image_samples_hook=lambda *_: None,
        )

    def step(
        self, prompts: Sequence[str], generators: Sequence[torch.Generator], seed: int
    ) -> list[dict[str, float]]:
        """One ``step`` of TRL on the trajectories of ``generators``; what it logged of each
        update. ``seed`` is what the global generators start from inside."""
        self.waiting = list(zip(prompts, generators, strict=True))
        self.log.updates.clear()
        # Shared by all trainers of a process.
        self.trainer.accelerator.gradient_accumulation_steps = self.accumulation
        # A recomputation is a whole forward pass, and is counted as one.
        with (
            self.task.policy.ledger.phase("loss"),
            global_generators(seed),
            set_checkpoint_early_stop(False),
        ):
            self.updates = self.trainer.step(epoch=self.updates, global_step=self.updates)
        assert not self.waiting
        return list(self.log.updates)

    def take_rewards(self) -> torch.Tensor:
        """Rewards ``[n]`` of the pictures scored since the last call."""
        rewards, self.rewards = torch.cat(self.rewards), []
        return rewards

    def take_norm(self) -> float:
        """Norm of the first gradient since the last call, before the clip."""
        norm, self.norms = self.norms[0], []
        return norm

    def take_log_ratios(self) -> list[float]:
        """The largest |log ratio| of each update since the last call."""
        largest, self.log_ratios = self.log_ratios, []
        return largest

    def _next_prompt(self) -> tuple[str, dict[str, Any]]:
        prompt, generator = self.waiting.pop(0)
        self.pipeline.generators.append(generator)
        return prompt, {}

    def _score(
        self, images: torch.Tensor, prompts: Sequence[str], _: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        rewards = self.reward(images, list(prompts)).float()  # TRL takes means: no integers
        self.rewards.append(rewards.detach())
        return rewards, {}

    def _loss_recorded(
        self, advantages: torch.Tensor, clip_range: float, ratio: torch.Tensor
    ) -> torch.Tensor:
        """TRL's clipped surrogate; notes how far the ratio ``[n]`` is from 1."""
        self._largest = max(self._largest, float(ratio.detach().log().abs().max()))
        return self._loss(advantages, clip_range, ratio)

    def _clip_recorded(self, parameters: Any, largest: float) -> None:
        """TRL's clip; raises ``Diverged`` on a gradient that is not finite, before the step."""
        norm = float(self._clip(parameters, largest))
        if not np.isfinite(norm):
            raise Diverged(f"the gradient is not finite: its norm is {norm}")
        self.norms.append(norm)
        self.log_ratios.append(self._largest)
        self._largest = 0.0
        self.task.policy.ledger.add("optimizer_steps", 1)

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, the number of updates, and the tracked rewards of each prompt."""
        tracker = getattr(self.trainer, "stat_tracker", None)
        tracked = {} if tracker is None else tracker.stats
        return {
            "optimizer": copy.deepcopy(self.trainer.optimizer.state_dict()),
            "updates": self.updates,
            "tracked": {str(prompt): [float(r) for r in kept] for prompt, kept in tracked.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        self.updates = int(state["updates"])
        tracker = getattr(self.trainer, "stat_tracker", None)
        if tracker is not None:  # in float32, as TRL keeps them: its statistics are rounded to it
            tracker.stats = {
                prompt: deque(map(np.float32, kept), maxlen=tracker.buffer_size)
                for prompt, kept in state["tracked"].items()
            }


@contextlib.contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch start from ``seed``; afterwards
    they are as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
