"""DAG-KL: detailed balance as a policy gradient (arXiv 2406.00633, Algorithm 1, KL variant).

The policy descends, at every state, the divergence

    KL( p_theta(x_s | x_t) || F(x_s, s) q(x_t | x_s) / F(x_t, t) ),

whose gradient is E[delta grad log p_theta(x_s | x_t)] with the residual delta of DAG-DB: a policy
gradient with the reward g = -delta a transition. Three losses are added,

    flow:         (log F(x_t) + sg[l_p - l_q] - log F(x_s))^2, for phi alone;
    policy:       max(-A rho, -A clip(rho, 1 - c, 1 + c)) times kappa, for theta alone, A being g
                  less its leave-one-out mean and over a deviation, within 5 of 0;
    regulariser:  lambda times the squared distance from the rollout's noise prediction,

sg stopping the gradient and rho being the ratio to the policy that sampled. In expectation the
policy moves as in DAG-DB; A is free of the scale of beta.

Follows apple/ml-diffusion-alignment-gflownet with its KL coefficient on; the value of kappa is
not released, 1 here. Differs as DAG-DB does (``methods/dag.py``), and: the baseline is taken
within micro-batches of a single timestep, since g has another mean at each (released:
micro-batches of 8 of mixed prompts and timesteps, ``baseline_group: micro_batch``); the deviation
is the round's, so that timesteps keep their proportion (released: leave-one-out within the
micro-batch, ``advantage_scale: group``); the ratio clip
is 3e-3 on the mean over dimensions, for a latent of 512 about the window on the joint log ratio
that the released 1e-4 is for Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from diffusion.rollout import Trajectories
from methods import (
    advantages,
    ddpo,
    flow_options,
    forward_looking,
    interface,
    processes,
    replay,
    sampling,
)
from methods.dag import detailed_balance_residual
from methods.interface import Method, MethodConfig, Target, Task, register
from methods.optimizer import Decay, Optimizer, WeightAverage

MicroBatchSize = Annotated[
    int,
    Field(
        ge=2,
        description="Samples in one forward pass with gradient, among which the baseline is "
        "taken: here it is part of the estimator. 8, as released.",
    ),
]
BaselineGroup = Annotated[
    Literal["micro_batch", "timestep"],
    Field(
        description="Transitions the baseline is taken over: those of a micro-batch, whose "
        "timesteps differ, as released, or micro-batches of a single timestep. 'timestep': the "
        "residual has another mean at each, which a mixed baseline leaves in.",
    ),
]
AdvantageScale = Annotated[
    Literal["group", "round"],
    Field(
        description="Deviation that -delta is divided by: leave-one-out within its baseline group, "
        "as released, or over all the round's transitions, each about the mean of its timestep, as "
        "the rollout left them. 'round': in its own group a late timestep, at which the reward "
        "hardly changes any more, weighs as much as one that decides it. Not with "
        "'fresh_rewards', which knows no rewards of states before it trains.",
    ),
]
Kappa = Annotated[
    float, Field(gt=0, description="Weight of the policy loss; only its sign is released. 1.")
]


class DagKlConfig(MethodConfig):
    """Options of DAG-KL."""

    prompts_per_round: interface.PromptsPerRound = 4
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    initial_noise: interface.InitialNoise = "shared"
    updates_per_round: interface.UpdatesPerRound = 1
    micro_batch_size: MicroBatchSize = 16
    timestep_fraction: interface.TimestepFraction = 1.0
    timestep_draw: interface.TimestepDraw = "random"
    step_weight: interface.StepWeight = "balanced"
    learning_rate: interface.LearningRate = 3e-3
    flow_learning_rate: flow_options.FlowLearningRate = 1e-3
    weight_decay: interface.WeightDecay = 1e-4
    gradient_clip: interface.GradientClip = 1.0
    flow_gradient_clip: flow_options.FlowGradientClip = 1.0
    reduction: interface.Reduction = "mean"
    guidance_in_training: interface.GuidanceInTraining = True
    beta: flow_options.Beta = 100.0
    beta_unit: flow_options.BetaUnit = "mean"
    beta_anneal: flow_options.BetaAnneal = "linear"
    beta_anneal_share: flow_options.BetaAnnealShare = 0.5
    beta_anneal_from: flow_options.BetaAnnealFrom = 1
    reward_unit: flow_options.RewardUnit = "raw"
    clean_prediction: flow_options.CleanPrediction = "conditional"
    fresh_rewards: flow_options.FreshRewards = False
    centre_states: flow_options.CentreStates = False
    flow_levels: flow_options.FlowLevels = "round"
    detach_next_flow: flow_options.DetachNextFlow = False
    regulariser_weight: flow_options.RegulariserWeight = 1.0
    learning_rate_decay: Decay = "constant"
    weight_average: WeightAverage = 0.0
    kappa: Kappa = 1.0
    baseline_group: BaselineGroup = "timestep"
    advantage_scale: AdvantageScale = "round"
    advantage_clip: advantages.Clip = 5.0
    ratio_clip: ddpo.RatioClip = 3e-3

    @model_validator(mode="after")
    def _centre_has_rewards(self) -> Self:
        flow_options.check_centre(self)
        if self.advantage_scale == "round" and self.fresh_rewards:
            raise ValueError("advantage_scale 'round' needs the rollout's rewards: set it to group")
        return self


@register
class DagKl(Method):
    """Detailed balance by a policy gradient, with a flow fitted beside it."""

    name = "dag-kl"
    title = "DAG-KL"
    paper = "2406.00633"
    Config = DagKlConfig
    RELEASED = {
        name: {
            **settings,
            "baseline_group": "micro_batch",
            "advantage_scale": "group",
            "ratio_clip": 1e-4,
        }
        for name, settings in flow_options.RELEASED.items()
    }
    needs_stochastic_sampler = True
    micro_batch_invariant = False

    def __init__(self, task: Task, config: DagKlConfig) -> None:
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
            config.weight_average,
        )
        self.flow = forward_looking.ForwardLookingFlow(task, config)
        self.deviation: float | None = None
        """Of the round's residuals; None where each baseline group has its own."""

    @property
    def target(self) -> Target:
        """exp(beta r): the base model's density is no part of it."""
        return Target(base=False, beta=self.flow.joint_beta())

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The averaged weights inside, where they are asked for."""
        with self.optimizer.averaged():
            yield

    @property
    def rounds(self) -> int:
        """Whole rounds in the budget."""
        return sampling.rounds_in_budget(self.task, self.config)

    def step(self) -> dict[str, float]:
        """Samples a round, scores its states, and takes its updates."""
        c = self.config
        self.optimizer.set_progress(self.round / self.rounds)
        self.flow.optimizer.set_progress(self.round / self.rounds)
        trajectories, terminal = sampling.sample_round(self.task, self.round, c)
        rewards = self.flow.state_rewards(trajectories, terminal)
        beta = self.flow.beta(self.round, self.rounds)
        with self.policy.ledger.phase("loss"):
            if c.flow_levels == "round":
                self.flow.fit_levels(trajectories, rewards, beta, self.log_reference)
            if c.advantage_scale == "round":
                self.deviation = self.round_deviation(trajectories, rewards, beta)
            orders = replay.update_orders(
                self.task.generator("replay", self.round),
                len(trajectories),
                len(trajectories.timesteps),
                updates=c.updates_per_round,
                micro_batch_size=c.micro_batch_size,
                timestep_fraction=c.timestep_fraction,
                timestep_draw=c.timestep_draw,
                shared_timesteps=c.baseline_group == "timestep",
            )
            updates = [self.update(trajectories, rewards, beta, order) for order in orders]
        self.round += 1
        ratios = [update.pop("log_ratio") for update in updates]
        mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        return {
            **sampling.reward_metrics(terminal),
            **mean,
            "log_ratio_first": ratios[0],
            "log_ratio_last": ratios[-1],
            "beta": beta,
        }

    def update(
        self, trajectories: Trajectories, rewards: torch.Tensor, beta: float, order: replay.Order
    ) -> dict[str, float]:
        """One step of policy and flow; the parts of the loss as means over transitions, and the
        largest magnitude of log rho met."""
        c = self.config
        weights = {"flow_loss": 1.0, "policy_loss": c.kappa, "regulariser": c.regulariser_weight}
        totals, largest = dict.fromkeys(weights, 0.0), 0.0
        for trajectory, step in order.batches:
            t = replay.gather(self.policy, trajectories, trajectory, step, c.guidance_in_training)
            losses = self.losses(t, rewards, beta)
            sums = {name: losses[name].sum() for name in weights}
            weighted = torch.stack([weights[name] * part for name, part in sums.items()])
            self.optimizer.backward(weighted.sum() / order.transitions)
            for name, part in sums.items():
                totals[name] += float(part.detach()) / order.transitions
            largest = max(largest, float(losses["log_ratio"].abs().max()))
        self.policy.ledger.add("optimizer_steps", 1)
        totals = {name: processes.total(value) for name, value in totals.items()}
        return {
            "loss": sum(weights[name] * total for name, total in totals.items()),
            **totals,
            "log_ratio": processes.largest(largest),
            "gradient_norm": self.optimizer.step(),
            "flow_gradient_norm": self.flow.optimizer.step(),
        }

    @torch.no_grad()
    def round_deviation(
        self, trajectories: Trajectories, rewards: torch.Tensor, beta: float
    ) -> float:
        """Root mean square, over the round's transitions, of delta less the mean of its timestep.

        The densities are the rollout's, so no network but the flow's is called.
        """
        n, centred = len(trajectories), []
        for step in range(len(trajectories.timesteps)):
            at = torch.full((n,), step)
            t = replay.gather(self.policy, trajectories, torch.arange(n), at)
            delta = self.residual(t, t.log_density, rewards, beta)
            centred.append(delta - delta.mean())
        return float(torch.stack(centred).square().mean().sqrt())

    def residual(
        self,
        transitions: replay.Transitions,
        log_policy: torch.Tensor,
        rewards: torch.Tensor,
        beta: float,
    ) -> torch.Tensor:
        """``delta`` of each transition, ``[n]``, with gradient to the flow network."""
        log_flow, next_log_flow = self.flow.log_flows(transitions, rewards, beta)
        log_noising = self.log_reference(transitions)
        return detailed_balance_residual(log_flow, next_log_flow, log_policy, log_noising)

    def log_reference(self, transitions: replay.Transitions) -> torch.Tensor:
        """Log density ``[n]`` of the noising kernel: log q(x_t | x_s)."""
        return replay.noising_density(self.policy, transitions, self.config.reduction)

    def losses(
        self, transitions: replay.Transitions, rewards: torch.Tensor, beta: float
    ) -> dict[str, torch.Tensor]:
        """The three losses of each transition, ``[n]`` each: those of flow and policy by their
        step's weight, none by its own; and log rho."""
        c, t = self.config, transitions
        log_policy, noise = replay.current_density(
            self.policy, t, c.reduction, c.guidance_in_training
        )
        delta = self.residual(t, log_policy.detach(), rewards, beta)
        advantage = self.advantages(t.step, -delta.detach())
        surrogate = ddpo.clipped_surrogate(log_policy, t.log_density, advantage, c.ratio_clip)
        weight = self.step_weights[t.step]
        return {
            "flow_loss": weight * delta.square(),
            "policy_loss": weight * surrogate,
            "regulariser": forward_looking.output_distance(noise, t.noise_prediction),
            "log_ratio": (log_policy - t.log_density).detach(),
        }

    def advantages(self, step: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Of a micro-batch's ``values`` ``[n]``: over all of it, or over each run of transitions
        of one timestep, of which it may hold several."""
        clip, groups = self.config.advantage_clip, [values]
        if self.config.baseline_group == "timestep":
            _, counts = step.unique_consecutive(return_counts=True)
            groups = list(values.split(counts.tolist()))
        return torch.cat([advantages.leave_one_out(g, clip, self.deviation) for g in groups])
