"""The forward-looking flow that DAG-DB and DAG-KL share (arXiv 2406.00633).

    log F(x_t, t, c) = f_phi(x_t, t, c) + beta_k r(Dec(x0_hat(x_t, t, c)), c),
    log F(x_0, 0, c) = beta_k r(Dec(x_0), c).

The reward of a noisy state is that of the clean picture the model predicts from it; the network
f_phi learns what is left. Terminal flow is the reward alone. Nothing flows from r into the policy.

With ``flow_levels: round`` f_phi has a constant for each prompt and timestep beside the network,
fitted to every round in closed form; see ``fit_levels``.

With ``centre_states`` a constant m_t of each timestep is taken out of r: the mean reward of its
states less that of the images, in the first round. It belongs to f_phi, of which it is only where
learning begins. Predictions from noise are blurred, which a reward such as file size likes: on the
emoji model it falls by 0.36 kB along the chain, twice its deviation within a prompt, and a flow
network that begins at zero has that to learn first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from diffusion.kernel import clean_prediction
from diffusion.policy import Conditioning
from diffusion.rollout import Trajectories
from methods import processes
from methods.flow_options import FlowConfig
from methods.interface import Task
from methods.optimizer import Optimizer
from methods.replay import Transitions, gather
from methods.sampling import score


def output_distance(noise: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The regulariser: squared distance of noise predictions ``[n, ...]``, averaged over
    dimensions, ``[n]``."""
    return (noise - reference).square().flatten(1).mean(dim=1)


class ForwardLookingFlow:
    """``f_phi`` with its optimizer, and the rewards that complete it to ``log F``."""

    def __init__(self, task: Task, config: FlowConfig) -> None:
        self.task, self.config, self.policy = task, config, task.policy
        self.network = task.policy.build_flow(task.generator("flow"))
        self.optimizer = Optimizer(
            self.policy.ledger,
            self.network.parameters(),
            config.flow_learning_rate,
            config.weight_decay,
            config.flow_gradient_clip,
            config.learning_rate_decay,
        )
        self.centre, self.scale = 0.0, 0.0
        self.step_means = torch.zeros(self.policy.schedule.steps + 1, device=self.policy.device)
        """m_t of each step, 0 for the images at the end."""
        self.levels: torch.Tensor | None = None
        """Of log F on the round's trajectories, ``[T + 1, n]``; see ``fit_levels``."""

    def beta(self, round_index: int, rounds: int) -> float:
        """``beta_k`` of a round, in the unit of ``reduction``."""
        c = self.config
        dimensions = torch.Size(self.policy.latent_shape).numel()
        factor = {("mean", "sum"): dimensions, ("sum", "mean"): 1 / dimensions}
        beta = c.beta * factor.get((c.beta_unit, c.reduction), 1)
        if c.beta_anneal == "constant":
            return beta
        return beta * min(1.0, (round_index + c.beta_anneal_from) / (c.beta_anneal_share * rounds))

    def joint_beta(self) -> float:
        """The beta of the raw reward that training ends at, for log-densities summed over
        dimensions. A unit of the first round's rewards is known once that round was sampled."""
        c = self.config
        dimensions = torch.Size(self.policy.latent_shape).numel()
        joint = c.beta * dimensions if c.beta_unit == "mean" else c.beta
        return joint / (self.scale or 1.0)

    def state_rewards(self, trajectories: Trajectories, terminal: torch.Tensor) -> torch.Tensor:
        """Rewards ``[T + 1, n]`` of a round's states, in ``reward_unit``; the last row are those
        of its images, ``terminal`` (raw). With ``fresh_rewards`` the other rows are zero."""
        c = self.config
        first = self.scale == 0.0
        if first:
            self.fix_unit(terminal)
        steps, n = len(trajectories.timesteps), len(trajectories)
        rewards = torch.zeros(steps + 1, n, device=terminal.device)
        rewards[-1] = self.in_unit(terminal)
        if not c.fresh_rewards:
            rewards[:-1] = self.in_unit(self.score_clean_predictions(trajectories))
        if first and c.centre_states:
            self.step_means = rewards.mean(1) - rewards[-1].mean()
        return rewards

    def score_clean_predictions(self, trajectories: Trajectories) -> torch.Tensor:
        """Raw rewards ``[T, n]`` of the clean predictions of a round's states; that of x_T is
        scored once for the trajectories that share it."""
        steps, n = len(trajectories.timesteps), len(trajectories)
        distinct, start = trajectories.starts.unique(return_inverse=True)
        # A state's place is its step * n + its trajectory.
        places = torch.cat([distinct, torch.arange(n, steps * n)])
        own = processes.own(places)
        prompts = [trajectories.prompts[index] for index in (own % n).tolist()]
        states = self.clean_predictions(trajectories, own)
        raw = score(self.task, states, prompts, self.config.micro_batch_size)
        raw = processes.gather(raw, len(places))
        return torch.cat([raw[start], raw[len(distinct) :]]).view(steps, n)

    @torch.no_grad()
    def clean_predictions(self, trajectories: Trajectories, places: torch.Tensor) -> torch.Tensor:
        """Of the states at ``places`` ``[m]`` of a round, step by step: ``[m, ...]``."""
        kind, t = self.config.clean_prediction, trajectories
        places = places.to(t.latents.device)
        if kind == "conditional":
            return t.conditional_clean_predictions.flatten(0, 1)[places]
        if kind == "guided":
            return t.clean_predictions.flatten(0, 1)[places]
        states = t.latents[:-1].flatten(0, 1)
        parts = []
        with self.policy.ledger.phase("reward"), self.policy.base():
            for part in places.split(self.config.micro_batch_size):
                step, latents = part // len(t), states[part]
                noise = self.policy.predict_conditional_noise(
                    latents, step, t.conditioning[part % len(t)]
                )
                parts.append(clean_prediction(self.policy.schedule, step, latents, noise))
        return torch.cat(parts)

    def fix_unit(self, terminal: torch.Tensor) -> None:
        """Sets the affine map from raw rewards, from the first round's images."""
        if self.config.reward_unit == "raw":
            self.centre, self.scale = 0.0, 1.0
        else:
            self.centre = float(terminal.double().mean())
            least = 1e-6 * (1 + abs(self.centre))
            self.scale = max(float(terminal.double().std(correction=0)), least)

    def in_unit(self, rewards: torch.Tensor) -> torch.Tensor:
        """Raw rewards in ``reward_unit``."""
        return (rewards - self.centre) / self.scale

    @torch.no_grad()
    def fit_levels(
        self,
        trajectories: Trajectories,
        rewards: torch.Tensor,
        beta: float,
        log_reference: Callable[[Transitions], torch.Tensor],
    ) -> None:
        """Sets ``levels``, one number for each prompt and timestep, 0 at the images.

        They are the least-squares fit of such numbers to the residuals that the rollout left: with
        it the residuals of every (prompt, timestep) are zero on average. Densities are the
        rollout's, so no network is called but the flow's and what ``log_reference`` calls.
        """
        n, steps = len(trajectories), len(trajectories.timesteps)
        self.levels = torch.zeros(steps + 1, n, device=rewards.device)
        _, prompt = np.unique(trajectories.prompts, return_inverse=True)
        same = torch.from_numpy(prompt[:, None] == prompt[None, :]).to(rewards)
        averaging = same / same.sum(1, keepdim=True)
        for step in reversed(range(steps)):
            t = gather(self.policy, trajectories, torch.arange(n), torch.full((n,), step))
            log_flow, next_log_flow = self.log_flows(t, rewards, beta)
            residual = log_flow + t.log_density - log_reference(t) - next_log_flow
            self.levels[step] = -(averaging @ residual)

    def log_flows(
        self, transitions: Transitions, rewards: torch.Tensor, beta: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``log F(x_t)`` and ``log F(x_s)``, each ``[n]``, with gradient to the flow network."""
        t, steps = transitions, self.policy.schedule.steps
        reward, next_reward = self.transition_rewards(t, rewards)
        reward = reward - self.step_means[t.step]
        next_reward = next_reward - self.step_means[t.step + 1]
        residual = self.network(t.latents, t.step, t.conditioning)
        next_step = (t.step + 1).clamp(max=steps - 1)
        next_residual = self.network(t.next_latents, next_step, t.conditioning)
        if self.config.detach_next_flow:
            next_residual = next_residual.detach()
        next_residual = torch.where(t.step + 1 == steps, 0.0, next_residual)
        log_flow, next_log_flow = residual + beta * reward, next_residual + beta * next_reward
        if self.levels is not None:
            log_flow = log_flow + self.levels[t.step, t.trajectory]
            next_log_flow = next_log_flow + self.levels[t.step + 1, t.trajectory]
        return log_flow, next_log_flow

    def transition_rewards(
        self, transitions: Transitions, rewards: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards of x_t and of x_s, each ``[n]``: remembered, or made afresh."""
        t = transitions
        if not self.config.fresh_rewards:
            return rewards[t.step, t.trajectory], rewards[t.step + 1, t.trajectory]
        reward = self.fresh_rewards(t.latents, t.step, t.conditioning, t.prompts)
        next_reward = rewards[-1, t.trajectory].clone()
        inner = (t.step + 1 < self.policy.schedule.steps).nonzero().squeeze(1)
        if len(inner):
            prompts = [t.prompts[index] for index in inner.tolist()]
            next_reward[inner] = self.fresh_rewards(
                t.next_latents[inner], t.step[inner] + 1, t.conditioning[inner], prompts
            )
        return reward, next_reward

    @torch.no_grad()
    def fresh_rewards(
        self,
        latents: torch.Tensor,
        step: torch.Tensor,
        conditioning: Conditioning,
        prompts: list[str],
    ) -> torch.Tensor:
        """Rewards ``[n]`` of the clean predictions of the current policy, in ``reward_unit``."""
        if self.config.clean_prediction == "guided":
            noise = self.policy.predict_noise(latents, step, conditioning).guided
        else:
            untrained = self.config.clean_prediction == "untrained"
            with self.policy.base() if untrained else nullcontext():
                noise = self.policy.predict_conditional_noise(latents, step, conditioning)
        clean = clean_prediction(self.policy.schedule, step, latents, noise)
        return self.in_unit(score(self.task, clean, prompts, self.config.micro_batch_size))

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer and reward unit."""
        return {
            "network": copy.deepcopy(self.network.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "centre": self.centre,
            "scale": self.scale,
            "step_means": self.step_means.cpu().clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.centre, self.scale = float(state["centre"]), float(state["scale"])
        self.step_means = state["step_means"].to(self.policy.device)
