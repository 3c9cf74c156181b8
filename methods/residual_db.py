"""Residual detailed balance: images in proportion to p_base exp(beta r).

DAG (``methods/dag.py``) balances the policy against the noising kernel, so that the base model is
no part of what it samples at zero loss. Here the pretrained transition takes that kernel's place,

    F(x_t, t) p_theta(x_s | x_t) = F(x_s, s) p_base(x_s | x_t),    F(x_0, 0) = exp(beta r(x_0)),
    delta = log F(x_t) + l_theta - l_base - log F(x_s),            L = E[delta^2] + lambda L_reg,

and a chain that keeps to it samples the base sampler's own distribution times exp(beta r): F(x_t)
is the mean of exp(beta r(x_0)) over the base chain from x_t on. At the untrained model
l_theta = l_base, so the residual starts at what F alone gets wrong. It is what to use when the
prior matters, and the control for DAG: all else is the same, the forward-looking flow, the options,
the regulariser towards the policy of the rollout.

The idea is that of the residual objectives of arXiv 2412.07775 (there through gradients of the
reward), whose authors compare with this variant as "residual DB"; they state no further settings,
and the defaults here are DAG-DB's. Cost beside DAG-DB's: one forward pass of the base model a
transition.
"""

from __future__ import annotations

import torch

from methods import replay
from methods.dag import Dag
from methods.interface import Target, register


@register
class ResidualDb(Dag):
    """Detailed balance relative to the pretrained model."""

    name = "residual-db"
    title = "Residual DB"
    paper = "2412.07775"
    RELEASED = {}  # none is; options and their defaults are DAG-DB's

    @property
    def target(self) -> Target:
        """p_base exp(beta r)."""
        return Target(base=True, beta=self.flow.joint_beta())

    @torch.no_grad()
    def log_reference(self, transitions: replay.Transitions) -> torch.Tensor:
        """Log density ``[n]`` of the untrained model: log p_base(x_s | x_t)."""
        c = self.config
        with self.policy.base():
            log_base, _ = replay.current_density(
                self.policy, transitions, c.reduction, c.guidance_in_training
            )
        return log_base
