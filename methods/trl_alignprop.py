"""AlignProp as TRL trains it (arXiv 2310.03739): its ``AlignPropTrainer``, release 0.23.1.

    L = 10 - mean r(Dec(x_0), c),

differentiated through decoder and chain as in ``methods/alignprop.py``. An update is one ``step``
of the trainer on its share of the round's prompts and noise, with its own truncation, loss,
accumulation and AdamW; how the policy reaches it stands in ``methods/trl_adapter.py``. With a
truncation that draws nothing, one update gives the parameters of ``alignprop``.

Differs from ``alignprop`` in what TRL does otherwise: random truncation is drawn once for a
micro-batch, so ``micro_batch_size`` matters there; steps without gradient are computed with one
and cut off afterwards; micro-batches are all of one size, the largest up to ``micro_batch_size``
that divides an update's images. Differs from TRL alone: thresholds are drawn up to T - 1, not T,
since with few steps none might carry a gradient, which stops TRL with an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from methods import interface, sampling, trl_adapter
from methods.interface import Method, MethodConfig, Task, register
from methods.trl_trainer import TrlTrainer

Truncation = Annotated[
    Literal["full", "last-k", "random-per-step"],
    Field(
        description="Which noise predictions carry gradient: all, those of the last 'last_steps', "
        "or step i of T with probability (i + 1) / T, drawn anew at every step for the whole "
        "micro-batch, TRL's default. 'last-k', as in 'alignprop'.",
    ),
]


class TrlAlignPropConfig(MethodConfig):
    """Options of TRL's AlignProp, by the names they have in ``alignprop``."""

    prompts_per_round: interface.PromptsPerRound = 2
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    updates_per_round: Annotated[
        int,
        Field(
            ge=1,
            description="Optimizer steps a round, each on its share of the round's images, "
            "sampled after the step before. 2: 16 images an update.",
        ),
    ] = 2
    micro_batch_size: interface.MicroBatchSize = 16
    learning_rate: interface.LearningRate = 5e-4
    weight_decay: interface.WeightDecay = 1e-4
    gradient_clip: interface.GradientClip = 1.0
    truncation: Truncation = "last-k"
    last_steps: Annotated[
        int, Field(ge=1, description="K of 'last-k'. 2, as in 'alignprop'; TRL's default is 1.")
    ] = 2

    @model_validator(mode="after")
    def _updates_share_the_round(self) -> Self:
        trl_adapter.update_size(self)
        return self


@register
class TrlAlignProp(Method):
    """TRL's trainer of the reward's gradient."""

    name = "trl-alignprop"
    title = "AlignProp (TRL)"
    paper = "2310.03739"
    Config = TrlAlignPropConfig
    RELEASED = {
        "trl": {
            "images_per_prompt": 1,
            "prompt_draw": "independent",
            "learning_rate": 1e-3,
            "truncation": "random-per-step",
        }
    }
    needs_reward_gradient = True
    several_processes = False
    extra = trl_adapter.EXTRA

    @classmethod
    def unavailable(cls) -> str:
        """Why TRL's trainer cannot run here, empty if it can."""
        return trl_adapter.unavailable()

    def __init__(self, task: Task, config: TrlAlignPropConfig) -> None:
        super().__init__(task, config)
        self.config = config
        assert task.reward_gradient is not None  # just checked
        self.trl = TrlTrainer("AlignProp", task, task.reward_gradient, self.options())

    def options(self) -> dict[str, Any]:
        """The options in TRL's words."""
        c, steps = self.config, self.policy.schedule.steps
        share = trl_adapter.update_size(c)
        micro_batch = trl_adapter.largest_divisor(share, c.micro_batch_size)
        first = max(0, steps - c.last_steps) if c.truncation == "last-k" else 0
        return {
            "train_batch_size": micro_batch,
            "train_gradient_accumulation_steps": share // micro_batch,
            "train_learning_rate": c.learning_rate,
            "train_adam_weight_decay": c.weight_decay,
            "train_max_grad_norm": c.gradient_clip,
            "truncated_backprop_rand": c.truncation == "random-per-step",
            "truncated_backprop_timestep": first,
            "truncated_rand_backprop_minmax": (0, steps - 1),
        }

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return sampling.rounds_in_budget(self.task, self.config)

    def step(self) -> dict[str, float]:
        """Samples and descends, a step of TRL's trainer for each update."""
        c = self.config
        prompts, generators = sampling.draw_round(self.task, self.round, c)
        shuffled = torch.randperm(len(prompts), generator=self.task.generator("replay", self.round))
        losses = []
        for index, share in enumerate(torch.tensor_split(shuffled, c.updates_per_round)):
            chosen = share.tolist()
            (update,) = self.trl.step(
                [prompts[i] for i in chosen],
                [generators[i] for i in chosen],
                self.task.generator("trl", self.round, index).initial_seed(),
            )
            losses.append(update["loss"])
        self.round += 1
        return {
            **sampling.reward_metrics(self.trl.take_rewards()),
            "loss": sum(losses) / len(losses),
            "gradient_norm": self.trl.take_norm(),
        }
