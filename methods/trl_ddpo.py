"""DDPO-IS as TRL trains it (arXiv 2305.13301): its ``DDPOTrainer``, release 0.23.1.

The objective is that of ``methods/ddpo.py``. A round is one ``step`` of the trainer on the round's
prompts and noise, with its own loss, shuffling, accumulation and AdamW; how the policy reaches it
and what is kept of its behaviour stands in ``methods/trl_adapter.py``. From the same weights, and
where both standardise over the round, one update gives the parameters of ``ddpo``.

Differs from ``ddpo`` in what TRL lacks or does otherwise: rewards are standardised over the round
or by prompt over rounds, not within a prompt's images (and by default over the round); transitions
weigh alike, there is no ``step_weight``, and are drawn at random; each trajectory has its own x_T;
log densities are averaged over dimensions only; the learning rate is constant;
micro-batches are all of one size, the largest up to ``micro_batch_size`` that divides an update's
trajectories; a group of several processes is refused. It shares the defects of its release:
in bfloat16 the stored log density is of the latent before rounding, and advantages clip there.
Differs from TRL alone in that the tracker knows prompts by their exact text, not re-tokenised.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from methods import advantages, interface, sampling, trl_adapter
from methods.ddpo import RatioClip
from methods.interface import Method, MethodConfig, Task, register
from methods.trl_trainer import TrlTrainer

SAMPLED_AT_ONCE = 32
"""Most trajectories sampled in one batch where TRL's divisibility allows; memory only."""

Standardisation = Annotated[
    Literal["batch", "per_prompt_tracker"],
    Field(
        description="What a reward is standardised over: all images of the round, TRL's default, "
        "or the prompt's last rewards over rounds. TRL has no standardisation within a prompt's "
        "images of the round.",
    ),
]


class TrlDdpoConfig(MethodConfig):
    """Options of TRL's DDPO, by the names they have in ``ddpo``."""

    prompts_per_round: interface.PromptsPerRound = 2
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    updates_per_round: interface.UpdatesPerRound = 2
    micro_batch_size: interface.MicroBatchSize = 16
    timestep_fraction: interface.TimestepFraction = 0.67
    learning_rate: interface.LearningRate = 3e-3
    weight_decay: interface.WeightDecay = 1e-4
    gradient_clip: interface.GradientClip = 1.0
    guidance_in_training: interface.GuidanceInTraining = True
    ratio_clip: RatioClip = 3e-3
    advantage: Standardisation = "batch"
    advantage_clip: advantages.Clip = 5.0
    tracker_buffer_size: advantages.BufferSize = 16
    tracker_min_count: advantages.MinCount = 16

    @model_validator(mode="after")
    def _updates_share_the_round(self) -> Self:
        trl_adapter.update_size(self)
        return self


@register
class TrlDdpo(Method):
    """TRL's trainer of the importance-sampled policy gradient."""

    name = "trl-ddpo"
    title = "DDPO (TRL)"
    paper = "2305.13301"
    Config = TrlDdpoConfig
    RELEASED = {
        "trl": {
            "prompts_per_round": 2,
            "images_per_prompt": 1,
            "prompt_draw": "independent",
            "timestep_fraction": 1.0,
            "learning_rate": 3e-4,
            "ratio_clip": 1e-4,
        }
    }
    needs_stochastic_sampler = True
    on_policy_in_half_precision = False
    several_processes = False
    extra = trl_adapter.EXTRA

    @classmethod
    def unavailable(cls) -> str:
        """Why TRL's trainer cannot run here, empty if it can."""
        return trl_adapter.unavailable()

    def __init__(self, task: Task, config: TrlDdpoConfig) -> None:
        super().__init__(task, config)
        self.config = config
        self.trl = TrlTrainer("DDPO", task, task.reward, self.options())

    def options(self) -> dict[str, Any]:
        """The options in TRL's words."""
        c, steps = self.config, self.policy.schedule.steps
        images = c.prompts_per_round * c.images_per_prompt
        share = trl_adapter.update_size(c)
        micro_batch = trl_adapter.largest_divisor(share, c.micro_batch_size)
        batches = images // micro_batch
        sampled = micro_batch * trl_adapter.largest_divisor(
            batches, max(1, SAMPLED_AT_ONCE // micro_batch)
        )
        used = max(1, int(steps * c.timestep_fraction))
        return {
            "sample_batch_size": sampled,
            "sample_num_batches_per_epoch": images // sampled,
            "train_batch_size": micro_batch,
            "train_gradient_accumulation_steps": share // micro_batch,
            "train_learning_rate": c.learning_rate,
            "train_adam_weight_decay": c.weight_decay,
            "train_max_grad_norm": c.gradient_clip,
            # Without guidance in sampling TRL has no unconditional branch to train.
            "train_cfg": c.guidance_in_training and self.policy.guidance_scale > 1,
            "train_clip_range": c.ratio_clip,
            "train_adv_clip_max": c.advantage_clip,
            "train_timestep_fraction": (used + 0.5) / steps,  # TRL rounds down
            "per_prompt_stat_tracking": c.advantage == "per_prompt_tracker",
            "per_prompt_stat_tracking_buffer_size": c.tracker_buffer_size,
            "per_prompt_stat_tracking_min_count": c.tracker_min_count,
        }

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return sampling.rounds_in_budget(self.task, self.config)

    def step(self) -> dict[str, float]:
        """One step of TRL's trainer: samples, scores, and takes its updates."""
        prompts, generators = sampling.draw_round(self.task, self.round, self.config)
        seed = self.task.generator("trl", self.round).initial_seed()
        updates = self.trl.step(prompts, generators, seed)
        self.round += 1
        log_ratios = self.trl.take_log_ratios()
        return {
            **sampling.reward_metrics(self.trl.take_rewards()),
            "loss": sum(update["loss"] for update in updates) / len(updates),
            "gradient_norm": self.trl.take_norm(),
            "log_ratio_first": log_ratios[0],
            "log_ratio_last": log_ratios[-1],
            "clip_fraction_last": updates[-1]["clipfrac"],
        }
