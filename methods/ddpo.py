"""DDPO-IS: importance-sampled, clipped policy gradient (arXiv 2305.13301, "DDPO_IS").

Several passes are taken over one round of samples. With the ratio of the current policy to the
one that sampled, rho = p_theta(x_s | x_t, c) / p_old(x_s | x_t, c), each transition costs

    max( -A rho,  -A clip(rho, 1 - c, 1 + c) ),

A the standardised reward of the trajectory's image, clipped to 5 standard deviations. Only the
first update of a round has rho = 1.

Follows kvablack/ddpo-pytorch: log densities averaged over the latent's dimensions, c = 1e-4 in
that unit, one pass over the round, each trajectory's timesteps permuted independently, gradients
accumulated over all of them, guidance in training through both branches, per-prompt statistics
(``advantage: per_prompt_tracker``). A clip of c on the mean is a window of about D c on the joint
log ratio of the D dimensions: 1.64 for Stable Diffusion's 16384, 0.05 for a latent of 512.
Differs: prompts of a round are distinct and each has several images, which start from the same x_T
and within which rewards are standardised by default; the first two thirds of the transitions are
trained on, in two passes of one update on the whole round (``inner_epochs``; the release shares
the round among its updates); log densities are of the latents as stored, so rho is exactly 1 at
first; the tracker keeps prompts by their exact text and float64 rewards.
"""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from diffusion.rollout import Trajectories
from methods import advantages, interface, processes, replay, sampling
from methods.interface import Method, MethodConfig, Task, register
from methods.optimizer import Decay, Optimizer

RatioClip = Annotated[
    float,
    Field(
        gt=0,
        description="How far the ratio may move from 1 before its gradient stops, in the unit of "
        "'reduction'. 1e-4 on the mean over dimensions, as released: on the joint log ratio that "
        "is 1.64 for Stable Diffusion and 0.05 for a latent of 512 dimensions. 3e-3 is about the "
        "same 1.64 for the latter.",
    ),
]


InnerEpochs = Annotated[
    int,
    Field(
        ge=1,
        description="Passes over a round's trajectories, each of 'updates_per_round' updates that "
        "share them. 1 as released; a pass costs as many UNet samples as another.",
    ),
]


def clipped_surrogate(
    log_density: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float
) -> torch.Tensor:
    """``max(-A rho, -A clip(rho, 1 - clip, 1 + clip))`` of each transition, ``[n]``."""
    ratio = torch.exp(log_density - old)
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


class DdpoConfig(MethodConfig):
    """Options of DDPO-IS."""

    prompts_per_round: interface.PromptsPerRound = 2
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    initial_noise: interface.InitialNoise = "shared"
    inner_epochs: InnerEpochs = 2
    updates_per_round: interface.UpdatesPerRound = 1
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
    ratio_clip: RatioClip = 3e-3
    advantage: advantages.Kind = "group"
    advantage_clip: advantages.Clip = 5.0
    tracker_buffer_size: advantages.BufferSize = 16
    tracker_min_count: advantages.MinCount = 16

    @model_validator(mode="after")
    def _groups_have_several_images(self) -> Self:
        advantages.check_group(self.advantage, self.images_per_prompt)
        return self


ROUND = {
    "images_per_prompt": 1,
    "inner_epochs": 1,
    "prompt_draw": "independent",
    "initial_noise": "independent",
    "timestep_fraction": 1.0,
    "timestep_draw": "random",
    "step_weight": "uniform",
    "learning_rate": 3e-4,
    "learning_rate_decay": "constant",
    "ratio_clip": 1e-4,
    "advantage": "per_prompt_tracker",
    "tracker_min_count": 16,
}


RELEASED = {
    "ddpo-pytorch:compressibility": {
        **ROUND,
        "prompts_per_round": 256,
        "updates_per_round": 4,
        "tracker_buffer_size": 16,
    },
    "ddpo-pytorch:aesthetic": {
        **ROUND,
        "prompts_per_round": 256,
        "updates_per_round": 2,
        "tracker_buffer_size": 32,
    },
    "ddpo-pytorch:alignment": {
        **ROUND,
        "prompts_per_round": 288,
        "updates_per_round": 2,
        "tracker_buffer_size": 32,
    },
}


@register
class Ddpo(Method):
    """Importance-sampled policy gradient with several updates a round."""

    name = "ddpo"
    title = "DDPO"
    paper = "2305.13301"
    Config = DdpoConfig
    RELEASED = RELEASED
    needs_stochastic_sampler = True

    def __init__(self, task: Task, config: DdpoConfig) -> None:
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
        """Samples a round, scores it, and takes its updates."""
        c = self.config
        self.optimizer.set_progress(self.round / self.rounds)
        trajectories, rewards = sampling.sample_round(self.task, self.round, c)
        advantage = self.advantages(trajectories.prompts, rewards)
        with self.policy.ledger.phase("loss"):
            generator = self.task.generator("replay", self.round)
            orders = [
                order
                for _ in range(c.inner_epochs)
                for order in replay.update_orders(
                    generator,
                    len(trajectories),
                    len(trajectories.timesteps),
                    updates=c.updates_per_round,
                    micro_batch_size=c.micro_batch_size,
                    timestep_fraction=c.timestep_fraction,
                    timestep_draw=c.timestep_draw,
                )
            ]
            updates = [self.update(trajectories, advantage, order) for order in orders]
        self.round += 1
        return {
            **sampling.reward_metrics(rewards),
            "loss": sum(update["loss"] for update in updates) / len(updates),
            "gradient_norm": updates[0]["gradient_norm"],
            "log_ratio_first": updates[0]["log_ratio"],
            "log_ratio_last": updates[-1]["log_ratio"],
            "clip_fraction_last": updates[-1]["clip_fraction"],
        }

    def update(
        self, trajectories: Trajectories, advantage: torch.Tensor, order: replay.Order
    ) -> dict[str, float]:
        """One optimizer step; ``log_ratio`` is the largest magnitude of log rho met."""
        c = self.config
        total, largest, clipped = 0.0, 0.0, 0.0
        for trajectory, step in order.batches:
            transitions = replay.gather(self.policy, trajectories, trajectory, step)
            log_density, _ = replay.current_density(
                self.policy, transitions, c.reduction, c.guidance_in_training
            )
            losses = clipped_surrogate(
                log_density,
                transitions.log_density,
                advantage[transitions.trajectory],
                c.ratio_clip,
            )
            loss = (self.step_weights[transitions.step] * losses).sum() / order.transitions
            self.optimizer.backward(loss)
            total += float(loss.detach())
            moved = (log_density.detach() - transitions.log_density).abs()
            largest = max(largest, float(moved.max()))
            clipped += float((moved.expm1() > c.ratio_clip).sum()) / order.transitions
        self.policy.ledger.add("optimizer_steps", 1)
        return {
            "loss": processes.total(total),
            "gradient_norm": self.optimizer.step(),
            "log_ratio": processes.largest(largest),
            "clip_fraction": processes.total(clipped),
        }
