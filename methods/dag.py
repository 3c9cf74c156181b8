"""DAG-DB: diffusion alignment as a generative flow network (arXiv 2406.00633, Algorithm 1).

Images are to be sampled in proportion to R = exp(beta r). A flow F over the states of the chain
makes the denoising policy do so when detailed balance holds at every transition,

    F(x_t, t) p_theta(x_s | x_t) = F(x_s, s) q(x_t | x_s),    F(x_0, 0) = R(x_0),

q being the noising kernel. The loss is the squared logarithm of the ratio of the two sides,

    delta = log F(x_t) + l_p - l_q - log F(x_s),    L = E[delta^2] + lambda L_reg,
    L_reg = mean over dimensions of (eps_theta(x_t) - eps_rollout(x_t))^2,

with l the log densities per latent dimension and the forward-looking flow of
``methods/forward_looking.py``. Gradients reach theta through l_p and L_reg alone, and phi through
both flows; l_q, the rewards and the states are constants. No ratio, clip or target net.

Follows apple/ml-diffusion-alignment-gflownet: densities averaged over dimensions, beta annealed
linearly over the first half, x0_hat from the conditional branch, lambda = 1, separate gradient
clips, two updates a round. Differs: the clean predictions of the rollout are scored once, T + 1
reward calls a trajectory, and that of an x_T which several images start from once for all of them
(``fresh_rewards`` brings back the released recomputation, of which it leaves out the one call a
trajectory whose value is overwritten); the flow network runs in fp32 and has its own learning
rate, which the release declares and never reads; the anneal's first round is 1, not 0; prompts of
a round are distinct and each has several images, which start from the same x_T; and the flow's
level at each timestep of a prompt, which those images share, is fitted to the round in closed
form (``flow_levels``; released: left to the network).

With ``subtrajectory_length`` k > 1 the residuals of k consecutive transitions are summed before the
square: the flows between them cancel, and balance is asked of the two ends (subtrajectory balance,
arXiv 2209.12782, at a fixed length; over the whole chain trajectory balance, arXiv 2201.13259).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Self

import torch
from pydantic import model_validator

from diffusion.rollout import Trajectories
from methods import flow_options, forward_looking, interface, processes, replay, sampling
from methods.interface import Method, MethodConfig, Target, Task, register
from methods.optimizer import Decay, Optimizer, WeightAverage


def detailed_balance_residual(
    log_flow: torch.Tensor,
    next_log_flow: torch.Tensor,
    log_policy: torch.Tensor,
    log_noising: torch.Tensor,
) -> torch.Tensor:
    """``delta``, zero where detailed balance holds, ``[n]``."""
    return log_flow + log_policy - log_noising - next_log_flow


class DagConfig(MethodConfig):
    """Options of DAG-DB."""

    prompts_per_round: interface.PromptsPerRound = 2
    images_per_prompt: interface.ImagesPerPrompt = 8
    prompt_draw: interface.PromptDraw = "without_replacement"
    initial_noise: interface.InitialNoise = "shared"
    updates_per_round: interface.UpdatesPerRound = 2
    micro_batch_size: interface.MicroBatchSize = 16
    timestep_fraction: interface.TimestepFraction = 0.67
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
    subtrajectory_length: flow_options.SubtrajectoryLength = 1
    regulariser_weight: flow_options.RegulariserWeight = 1.0
    learning_rate_decay: Decay = "constant"
    weight_average: WeightAverage = 0.0

    @model_validator(mode="after")
    def _centre_has_rewards(self) -> Self:
        flow_options.check_centre(self)
        if self.subtrajectory_length > self.micro_batch_size:
            raise ValueError("subtrajectory_length is above micro_batch_size")
        if self.subtrajectory_length > 1 and self.detach_next_flow:
            raise ValueError(
                "detach_next_flow needs subtrajectory_length 1: the flows between cancel"
            )
        return self


@register
class Dag(Method):
    """Detailed balance with a forward-looking flow."""

    name = "dag"
    title = "DAG-DB"
    paper = "2406.00633"
    Config = DagConfig
    RELEASED = flow_options.RELEASED
    needs_stochastic_sampler = True

    def __init__(self, task: Task, config: DagConfig) -> None:
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
            updates = [
                self.update(trajectories, rewards, beta, order)
                for order in self.orders(len(trajectories), len(trajectories.timesteps))
            ]
        self.round += 1
        mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        return {**sampling.reward_metrics(terminal), **mean, "beta": beta}

    def orders(self, trajectories: int, steps: int) -> list[replay.Order]:
        """The transitions of each of the round's updates."""
        c = self.config
        source = self.task.generator("replay", self.round)
        options: dict[str, Any] = {
            "updates": c.updates_per_round,
            "micro_batch_size": c.micro_batch_size,
            "timestep_fraction": c.timestep_fraction,
            "timestep_draw": c.timestep_draw,
        }
        if c.subtrajectory_length == 1:
            return replay.update_orders(source, trajectories, steps, **options)
        length = c.subtrajectory_length
        return replay.subtrajectory_orders(source, trajectories, steps, length=length, **options)

    def update(
        self, trajectories: Trajectories, rewards: torch.Tensor, beta: float, order: replay.Order
    ) -> dict[str, float]:
        """One step of policy and flow; the parts of the loss as means over what is squared and over
        transitions."""
        c = self.config
        balance_total, regulariser_total = 0.0, 0.0
        # Summed over transitions; the mean is over what is squared.
        share = order.transitions / (order.subtrajectories or order.transitions)
        for (trajectory, step), lengths in zip_longest(order.batches, order.lengths):
            t = replay.gather(self.policy, trajectories, trajectory, step, c.guidance_in_training)
            balance, regulariser = self.losses(t, rewards, beta, lengths)
            balance = share * balance
            loss = (balance + c.regulariser_weight * regulariser).sum() / order.transitions
            self.optimizer.backward(loss)
            balance_total += float(balance.detach().sum()) / order.transitions
            regulariser_total += float(regulariser.detach().sum()) / order.transitions
        self.policy.ledger.add("optimizer_steps", 1)
        balance_total = processes.total(balance_total)
        regulariser_total = processes.total(regulariser_total)
        return {
            "loss": balance_total + c.regulariser_weight * regulariser_total,
            "balance_loss": balance_total,
            "regulariser": regulariser_total,
            "gradient_norm": self.optimizer.step(),
            "flow_gradient_norm": self.flow.optimizer.step(),
        }

    def losses(
        self,
        transitions: replay.Transitions,
        rewards: torch.Tensor,
        beta: float,
        lengths: list[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``delta^2``, by its step's weight, and the regulariser of each transition, ``[n]``.

        Where the transitions are subtrajectories of ``lengths``, each has its share, one over the
        length, of the square of its subtrajectory's sum.
        """
        c, t = self.config, transitions
        # First, since a model may have to swap its weights for it, which a graph does not survive.
        log_reference = self.log_reference(t)
        log_policy, noise = replay.current_density(
            self.policy, t, c.reduction, c.guidance_in_training
        )
        log_flow, next_log_flow = self.flow.log_flows(t, rewards, beta)
        delta = detailed_balance_residual(log_flow, next_log_flow, log_policy, log_reference)
        squares = delta.square() if lengths is None else replay.shared_squares(delta, lengths)
        balance = self.step_weights[t.step] * squares
        return balance, forward_looking.output_distance(noise, t.noise_prediction)

    def log_reference(self, transitions: replay.Transitions) -> torch.Tensor:
        """Log density ``[n]`` that the policy's is balanced against: log q(x_t | x_s)."""
        return replay.noising_density(self.policy, transitions, self.config.reduction)
