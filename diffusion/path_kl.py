"""How far a policy has moved from its base model, along the policy's own trajectories.

    KL(p_theta || p_base) = E_theta[ sum_t |mu_theta(x_t) - mu_base(x_t)|^2 / (2 sigma_t^2) ]

over trajectories x_T, ..., x_0 of the policy. It is the expectation of the log-density ratio
log p_theta(x_s | x_t) - log p_base(x_s | x_t) summed over steps; the divergence of each step's two
normal distributions takes the place of the ratio at the drawn x_s, whose expectation it is, so that
only the trajectory remains random. It bounds the divergence of the images from above.
"""

from __future__ import annotations

import torch

from diffusion.kernel import Gaussian, Schedule, standard_deviation
from diffusion.policy import Policy
from diffusion.rollout import SampledStep


class PathKl:
    """Watches ``sample`` and gives the divergence of chosen samples of its batch.

    For policies whose deviations are the schedule's, the same in training and before it.

    Costs the base model's noise prediction at every step of a chosen sample, both branches of
    guidance: as many UNet samples as sampling it took.
    """

    def __init__(self, policy: Policy, chosen: torch.Tensor, eta: float | None = None):
        """``chosen`` bool ``[n]``: which samples of the batch to watch; ``eta`` is that of the
        sampling watched, the policy's own by default."""
        self.policy, self.chosen, self.eta = policy, chosen, eta
        self._steps: list[SampledStep] = []

    def __call__(self, taken: SampledStep) -> None:
        """Keep one step of the chosen samples."""
        chosen = self.chosen.to(taken.latents.device)
        gaussian = Gaussian(taken.gaussian.mean[chosen], taken.gaussian.std[chosen])
        self._steps.append(
            SampledStep(
                step=taken.step[self.chosen],
                latents=taken.latents[chosen],
                conditioning=taken.conditioning[chosen],
                gaussian=gaussian,
            )
        )

    @torch.no_grad()
    def nats(self) -> torch.Tensor:
        """float32 ``[chosen]`` on the CPU: sum over the steps seen and latent dimensions."""
        total = torch.zeros(int(self.chosen.sum()))
        policy = self.policy
        # Once for all steps: a fully trained model moves all its weights to become the base.
        with policy.base():
            for taken in self._steps if len(total) else []:
                prediction = policy.predict_noise(taken.latents, taken.step, taken.conditioning)
                base = policy.transition(taken.step, taken.latents, prediction.guided, self.eta)
                total += step_kl(taken.gaussian, base).cpu()
        return total


def step_kl(policy: Gaussian, base: Gaussian) -> torch.Tensor:
    """KL divergence of two normal distributions of the same deviation, in nats: ``[n]``.

    Summed over latent dimensions.
    """
    distance = (policy.mean - base.mean).flatten(1).double().square().sum(dim=1)
    return (distance / (2 * policy.std.double().square())).float()


def has_path_kl(schedule: Schedule, eta: float) -> bool:
    """Whether every step has noise; without, the divergence of two models is infinite."""
    deviations = standard_deviation(schedule, torch.arange(schedule.steps), eta)
    return bool((deviations > 0).all())
