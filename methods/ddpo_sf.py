"""DDPO-SF: the score-function policy gradient (arXiv 2305.13301, section 4.3, "DDPO_SF").

The denoising chain is a decision process whose only reward r(x_0, c) comes at its end:

    grad J = E[ sum_t  A(x_0, c)  grad log p_theta(x_s | x_t, c) ],

where the advantage A is the standardised reward. This holds for samples of the current policy
only, so a round takes a single optimizer step, and there is no importance ratio. Released code has
no path of its own for it; a ratio left in would be 1 up to rounding and clipped by that rounding.

Follows kvablack/ddpo-pytorch in the advantage clip, in guidance while training, and in AdamW.
Differs: one update a round, as the estimator needs; a reward is standardised within the prompt's
images of the round unless ``advantage`` says otherwise. With ``reduction`` "mean" the gradient is
the one above divided by the latent's dimensions, which AdamW
does not see, and the gradient clip does.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import model_validator

from diffusion.rollout import Trajectories
from methods import advantages, interface, processes, replay, sampling
from methods.interface import Method, MethodConfig, Task, register
from methods.optimizer import Decay, Optimizer


def score_function_loss(log_density: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """``-A log p`` of each transition, ``[n]``; its gradient is the negated policy gradient."""
    return -advantage * log_density


class DdpoSfConfig(MethodConfig):
    """Options of DDPO-SF."""

    prompts_per_round: interface.PromptsPerRound = 2
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    initial_noise: interface.InitialNoise = "shared"
    micro_batch_size: interface.MicroBatchSize = 16
    timestep_fraction: interface.TimestepFraction = 0.67
    timestep_draw: interface.TimestepDraw = "first"
    step_weight: interface.StepWeight = "balanced"
    learning_rate: interface.LearningRate = 3e-3
    learning_rate_decay: Decay = "constant"
    weight_decay: interface.WeightDecay = 1e-4
    gradient_clip: interface.GradientClip = 1.0
    reduction: interface.Reduction = "mean"
    guidance_in_training: interface.GuidanceInTraining = True
    advantage: advantages.Kind = "group"
    advantage_clip: advantages.Clip = 5.0
    tracker_buffer_size: advantages.BufferSize = 16
    tracker_min_count: advantages.MinCount = 16

    @model_validator(mode="after")
    def _groups_have_several_images(self) -> Self:
        advantages.check_group(self.advantage, self.images_per_prompt)
        return self


@register
class DdpoSf(Method):
    """Score-function policy gradient, strictly on-policy."""

    name = "ddpo-sf"
    title = "DDPO-SF"
    paper = "2305.13301"
    Config = DdpoSfConfig
    needs_stochastic_sampler = True

    def __init__(self, task: Task, config: DdpoSfConfig) -> None:
        super().__init__(task, config)
        self.config = config
        self.step_weights = replay.step_weights(self.policy, config.step_weight)
        self.optimizer = Optimizer(
            self.policy.ledger,
            self.policy.parameters(),
            config.learning_rate,
            config.weight_decay,
            config.gradient_clip,
            config.learning_rate_decay,
        )
        self.advantages = advantages.Advantages(
            config.advantage,
            config.advantage_clip,
            config.tracker_buffer_size,
            config.tracker_min_count,
        )

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return sampling.rounds_in_budget(self.task, self.config)

    def step(self) -> dict[str, float]:
        """Samples a round, scores it, and takes one step."""
        self.optimizer.set_progress(self.round / self.rounds)
        trajectories, rewards = sampling.sample_round(self.task, self.round, self.config)
        advantage = self.advantages(trajectories.prompts, rewards)
        with self.policy.ledger.phase("loss"):
            metrics = self.update(trajectories, advantage)
        self.round += 1
        return {**sampling.reward_metrics(rewards), **metrics}

    def update(self, trajectories: Trajectories, advantage: torch.Tensor) -> dict[str, float]:
        """One optimizer step over all transitions, in micro-batches."""
        c = self.config
        order = replay.update_orders(
            self.task.generator("replay", self.round),
            len(trajectories),
            len(trajectories.timesteps),
            updates=1,
            micro_batch_size=c.micro_batch_size,
            timestep_fraction=c.timestep_fraction,
            timestep_draw=c.timestep_draw,
        )[0]
        total = 0.0
        for trajectory, step in order.batches:
            transitions = replay.gather(self.policy, trajectories, trajectory, step)
            log_density, _ = replay.current_density(
                self.policy, transitions, c.reduction, c.guidance_in_training
            )
            losses = score_function_loss(log_density, advantage[transitions.trajectory])
            loss = (self.step_weights[transitions.step] * losses).sum() / order.transitions
            self.optimizer.backward(loss)
            total += float(loss.detach())
        self.policy.ledger.add("optimizer_steps", 1)
        return {"loss": processes.total(total), "gradient_norm": self.optimizer.step()}
