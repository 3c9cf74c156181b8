"""AlignProp: the reward's gradient, taken back through the sampling chain (arXiv 2310.03739).

    L = -r(Dec(x_0), c),    x_s = mu_theta(x_t, c) + sigma_t noise,

differentiated through decoder and chain, every UNet call being recomputed in the backward pass
(gradient checkpointing) so that memory does not grow with the number of calls. Truncation lets the
noise prediction of some steps carry no gradient; x_t's linear part of x_s still does. Which steps
do (``truncation``), step 0 being the noisiest of T:

    full                    all;
    last-k                  the last ``last_steps`` (K; 1 is the releases' fixed threshold 49);
    random-per-step         step i with probability (i + 1) / (T + 1), anew at every step: the
                            paper's release and TRL, about half the steps, not contiguous;
    random-per-trajectory   all from a threshold drawn for the trajectory on: the rewrite of
                            October 2024, threshold normal(42/50 T, 5/50 T) or uniform.

Two releases at mihirp1998/AlignProp differ: the paper's (eta 0, guidance 7.5, weight decay 0.1,
gradient clip 5, loss 0.01 |r - 10| for the aesthetic score) and the rewrite (eta 1, guidance 5,
weight decay 1e-4, clip 1, the same loss). Here eta and guidance are the policy's, decay and clip
the rewrite's, and the loss is -r by default. Differs: steps are drawn for each image, where the
releases draw once for a device's batch, so that results do not depend on ``micro_batch_size``;
images stay in [0, 1]; a threshold is at most T - 1, so that every image has a gradient.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch.utils.checkpoint import checkpoint

from diffusion.kernel import Gaussian
from diffusion.policy import Conditioning, Policy
from diffusion.rollout import initial_latents
from methods import interface, processes, replay, sampling
from methods.interface import Method, MethodConfig, Task, register
from methods.optimizer import Decay, Optimizer

Truncation = Literal["full", "last-k", "random-per-step", "random-per-trajectory"]
Threshold = Literal["gaussian", "uniform"]
Loss = Literal["maximise", "target"]


class AlignPropConfig(MethodConfig):
    """Options of AlignProp."""

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
    learning_rate_decay: Decay = "constant"
    weight_decay: interface.WeightDecay = 1e-4
    gradient_clip: interface.GradientClip = 1.0
    truncation: Annotated[
        Truncation,
        Field(
            description="Which noise predictions carry gradient, see the module. 'last-k', the "
            "cheapest: its cost is known and it moves a small model soonest.",
        ),
    ] = "last-k"
    last_steps: Annotated[
        int, Field(ge=1, description="K of 'last-k'. 2; the releases' fixed threshold is 1.")
    ] = 2
    threshold: Annotated[
        Threshold,
        Field(
            description="Distribution of the first step with gradient of "
            "'random-per-trajectory': 'gaussian', normal with mean 42/50 and deviation 5/50 of "
            "the steps as released, or 'uniform' over the steps.",
        ),
    ] = "gaussian"
    loss: Annotated[
        Loss,
        Field(
            description="'maximise', -r, or 'target', loss_coefficient |r - loss_target|. -r, "
            "which needs no knowledge of the reward's scale.",
        ),
    ] = "maximise"
    loss_target: Annotated[
        float, Field(description="Reward aimed at by 'target'. 10, as for the aesthetic score.")
    ] = 10.0
    loss_coefficient: Annotated[
        float, Field(gt=0, description="Weight of the 'target' loss. 0.01, as released.")
    ] = 0.01


RELEASED: dict[str, dict[str, Any]] = {
    "AlignProp:aesthetic": {
        "prompts_per_round": 256,
        "images_per_prompt": 1,
        "prompt_draw": "independent",
        "updates_per_round": 2,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "gradient_clip": 5.0,
        "truncation": "random-per-step",
        "loss": "target",
        "loss_target": 10.0,
        "loss_coefficient": 0.01,
    },
    "AlignProp-2024-10:aesthetic": {
        "prompts_per_round": 128,
        "images_per_prompt": 1,
        "prompt_draw": "independent",
        "updates_per_round": 1,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "gradient_clip": 1.0,
        "truncation": "random-per-trajectory",
        "threshold": "gaussian",
        "loss": "target",
        "loss_target": 10.0,
        "loss_coefficient": 0.01,
    },
    "trl:aesthetic": {
        "images_per_prompt": 1,
        "prompt_draw": "independent",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "gradient_clip": 1.0,
        "truncation": "random-per-step",
        "loss": "target",
        "loss_target": 10.0,
        "loss_coefficient": 1.0,
    },
}


def gradient_steps(
    config: AlignPropConfig, steps: int, images: int, source: torch.Generator
) -> torch.Tensor:
    """Which noise predictions carry gradient: bool ``[steps, images]``."""
    index = torch.arange(steps).unsqueeze(1)
    if config.truncation == "full":
        first = torch.zeros(1, images)
    elif config.truncation == "last-k":
        first = torch.full((1, images), steps - config.last_steps)
    elif config.truncation == "random-per-step":
        first = torch.randint(steps + 1, (steps, images), generator=source)
    elif config.threshold == "uniform":
        first = torch.randint(steps, (1, images), generator=source)
    else:
        normal = torch.randn(1, images, generator=source)
        first = (steps * (42 + 5 * normal) / 50).round().clamp(0, steps - 1)
    return index >= first


def predict_truncated(
    policy: Policy,
    latents: torch.Tensor,
    step: torch.Tensor,
    conditioning: Conditioning,
    carries: torch.Tensor,
) -> torch.Tensor:
    """Guided noise prediction ``[n, ...]``, with gradient where ``carries`` (bool ``[n]``)."""

    def predict(chosen: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        return policy.predict_noise(noisy, step[chosen], conditioning[chosen]).guided

    kept, rest = carries.nonzero().squeeze(1), (~carries).nonzero().squeeze(1)
    parts = []
    if len(kept):
        # No early stop: the recomputation is a whole forward pass, and is counted as one.
        parts.append(
            checkpoint(
                predict,
                kept,
                latents[kept],
                use_reentrant=False,
                preserve_rng_state=False,
                early_stop=False,
            )
        )
    if len(rest):
        with torch.no_grad():
            parts.append(predict(rest, latents[rest]))
    return torch.cat(parts)[torch.cat([kept, rest]).argsort()]


def sample_with_gradient(
    policy: Policy, prompts: list[str], generators: list[torch.Generator], carries: torch.Tensor
) -> torch.Tensor:
    """Sampled latents x_0 ``[n, ...]``, differentiable through the steps that ``carries`` (bool
    ``[T, n]``); the same samples as a rollout's from the same generators."""
    conditioning = policy.encode(prompts)
    latents = initial_latents(policy, generators)
    carries = carries.to(policy.device)
    for index in range(policy.schedule.steps):
        step = torch.full((len(prompts),), index, device=policy.device)
        noise = predict_truncated(policy, latents, step, conditioning, carries[index])
        gaussian = policy.transition(step, latents, noise)
        gaussian = Gaussian(gaussian.mean, gaussian.std.detach())  # a model may have learned it
        drawn = [torch.randn(policy.latent_shape, generator=source) for source in generators]
        latents = gaussian.sample(torch.stack(drawn).to(policy.device)).to(policy.dtype)
    policy.ledger.add("images", len(prompts))
    return latents


@register
class AlignProp(Method):
    """Backpropagation of the reward through the sampling chain."""

    name = "alignprop"
    title = "AlignProp"
    paper = "2310.03739"
    Config = AlignPropConfig
    RELEASED = RELEASED
    needs_reward_gradient = True

    def __init__(self, task: Task, config: AlignPropConfig) -> None:
        super().__init__(task, config)
        self.config = config
        self.optimizer = Optimizer(
            self.policy.ledger,
            self.policy.parameters(),
            config.learning_rate,
            config.weight_decay,
            config.gradient_clip,
            config.learning_rate_decay,
        )

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return sampling.rounds_in_budget(self.task, self.config)

    def step(self) -> dict[str, float]:
        """Samples and descends, an update at a time."""
        c = self.config
        self.optimizer.set_progress(self.round / self.rounds)
        prompts, generators = sampling.draw_round(self.task, self.round, c)
        steps = self.policy.schedule.steps
        source = self.task.generator("truncation", self.round)
        carries = gradient_steps(c, steps, len(prompts), source)
        shuffled = torch.randperm(len(prompts), generator=self.task.generator("replay", self.round))
        rewards, losses, norms = [], [], []
        for share in torch.tensor_split(shuffled, c.updates_per_round):
            own = [torch.zeros(0, device=self.policy.device)]
            for part in replay.micro_batches(processes.own(share), c.micro_batch_size):
                chosen = part.tolist()
                reward, loss = self.accumulate(
                    [prompts[i] for i in chosen],
                    [generators[i] for i in chosen],
                    carries[:, part],
                    len(share),
                )
                own.append(reward)
                losses.append(loss)
            rewards.append(processes.gather(torch.cat(own), len(share)))
            self.policy.ledger.add("optimizer_steps", 1)
            norms.append(self.optimizer.step())
        self.round += 1
        return {
            **sampling.reward_metrics(torch.cat(rewards)),
            "loss": processes.total(sum(losses)) / len(norms),
            "gradient_norm": norms[0],
            "gradient_steps": float(carries.float().sum(0).mean()),
        }

    def accumulate(
        self,
        prompts: list[str],
        generators: list[torch.Generator],
        carries: torch.Tensor,
        images: int,
    ) -> tuple[torch.Tensor, float]:
        """Adds a micro-batch's gradient, over ``images``; its rewards ``[n]`` and loss share."""
        c, ledger = self.config, self.policy.ledger
        with ledger.phase("sample"):
            latents = sample_with_gradient(self.policy, prompts, generators, carries)
        assert self.task.reward_gradient is not None  # checked when the method was made
        rewards = self.task.reward_gradient(self.policy.decode(latents), prompts)
        with ledger.phase("loss"):
            if c.loss == "maximise":
                values = -rewards
            else:
                values = c.loss_coefficient * (rewards - c.loss_target).abs()
            loss = values.sum() / images
        if loss.requires_grad:  # not when no step of the micro-batch happened to be drawn
            self.optimizer.backward(loss)
        return rewards.detach(), float(loss.detach())
