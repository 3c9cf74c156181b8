"""Methods and rewards that each break one thing every one of them must keep."""

from __future__ import annotations

import itertools
import random
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from benchmark.conformance.trial import Tint
from methods import MethodConfig, processes, replay, sampling
from methods.ddpo import Ddpo
from methods.ddpo_sf import DdpoSf, score_function_loss


def nudge(method: Any) -> None:
    with torch.no_grad():
        for parameter in method.policy.parameters():
            parameter.add_(1e-3)


class Nameless(DdpoSf):
    title = None  # type: ignore[assignment]


class LooseConfig(MethodConfig):
    model_config = ConfigDict(frozen=True, extra="ignore")
    secret: int = 1


class Undocumented(DdpoSf):
    Config = LooseConfig  # type: ignore[assignment]


class UndeclaredNeed(DdpoSf):
    needs_stochastic_sampler = False


class UncheckedNeed(Ddpo):
    needs_reward_gradient = True

    def __init__(self, task: Any, config: Any) -> None:
        type(self).needs_reward_gradient = False
        try:
            super().__init__(task, config)
        finally:
            type(self).needs_reward_gradient = True


class OverBudget(DdpoSf):
    @property
    def rounds(self) -> int:
        return super().rounds + 1


class LateMetrics(DdpoSf):
    def step(self) -> dict[str, float]:
        return dict(reversed(super().step().items()))


class BadMetric(DdpoSf):
    def step(self) -> dict[str, float]:
        return {**super().step(), "gain": float("nan")}


class ChangesFrozen(DdpoSf):
    def step(self) -> dict[str, float]:
        metrics = super().step()
        policy: Any = self.policy
        policy.decoder.data.add_(1e-6)
        return metrics


class Unfreezes(DdpoSf):
    def __init__(self, task: Any, config: Any) -> None:
        super().__init__(task, config)
        policy: Any = self.policy
        self.frozen = policy.unet.inner

    def step(self) -> dict[str, float]:
        self.frozen.requires_grad_(True)
        return super().step()


class TrainsNothing(DdpoSf):
    def step(self) -> dict[str, float]:
        before = self.policy.state_dict()
        metrics = super().step()
        self.policy.load_state_dict(before)
        return metrics


class FollowsReference(DdpoSf):
    def step(self) -> dict[str, float]:
        latents = torch.zeros(2, *self.policy.latent_shape, requires_grad=True)
        self.task.reward(self.policy.decode(latents), ["", ""]).sum().backward()
        return super().step()


class IdleGradient(DdpoSf):
    needs_reward_gradient = True


class MovesBeforeUpdate(DdpoSf):
    """Its ratio is never computed, and would not be 1."""

    def update(self, trajectories: Any, advantage: Tensor) -> dict[str, float]:
        nudge(self)
        return super().update(trajectories, advantage)


class StaleRound(Ddpo):
    """Trains on the round before."""

    kept: Any = None

    def update(self, trajectories: Any, advantage: Tensor, order: Any) -> dict[str, float]:
        self.kept, old = (trajectories, advantage), self.kept or (trajectories, advantage)
        metrics = super().update(*old, order)
        return {**metrics, "log_ratio": 0.0}


class StaleDensity(Ddpo):
    """Compares with densities that are off."""

    def update(self, trajectories: Any, advantage: Tensor, order: Any) -> dict[str, float]:
        trajectories.log_densities += 1e-4
        return super().update(trajectories, advantage, order)


class OtherPrecision(DdpoSf):
    """Samples in the model's precision, and trains in float32."""

    def update(self, trajectories: Any, advantage: Tensor) -> dict[str, float]:
        dtype, self.policy.dtype = self.policy.dtype, torch.float32
        try:
            return super().update(trajectories, advantage)
        finally:
            self.policy.dtype = dtype


class MeanOfBatch(DdpoSf):
    """Adds up means of micro-batches in place of sums over the round's transitions."""

    def update(self, trajectories: Any, advantage: Tensor) -> dict[str, float]:
        c = self.config
        order = replay.update_orders(
            self.task.generator("replay", self.round),
            len(trajectories),
            len(trajectories.timesteps),
            updates=1,
            micro_batch_size=c.micro_batch_size,
        )[0]
        for trajectory, step in order.batches:
            t = replay.gather(self.policy, trajectories, trajectory, step)
            log_density, _ = replay.current_density(self.policy, t, c.reduction)
            score_function_loss(log_density, advantage[t.trajectory]).mean().backward()
        self.policy.ledger.add("optimizer_steps", 1)
        return {"loss": 0.0, "gradient_norm": self.optimizer.step()}


class ForgetsMoments(DdpoSf):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = int(state["round"])


class HidesState(DdpoSf):
    """Counts its rounds in an object that tells nobody its state."""

    def __init__(self, task: Any, config: Any) -> None:
        super().__init__(task, config)
        self.steps = itertools.count()

    def step(self) -> dict[str, float]:
        return {**super().step(), "steps": float(next(self.steps))}


class ObjectState(DdpoSf):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "source": random.Random(0)}


class CountsPrompts(DdpoSf):
    """Depends on how often prompts were encoded, by evaluation too."""

    def __init__(self, task: Any, config: Any) -> None:
        super().__init__(task, config)
        encode, self.encoded = self.policy.encode, 0

        def counting(prompts: Any) -> Any:
            self.encoded += 1
            return encode(prompts)

        setattr(self.policy, "encode", counting)  # noqa: B010

    def step(self) -> dict[str, float]:
        return {**super().step(), "encoded": float(self.encoded)}


class GlobalNoise(DdpoSf):
    def step(self) -> dict[str, float]:
        return {**super().step(), "luck": float(torch.rand(()))}


class DeafToSeed(DdpoSf):
    def __init__(self, task: Any, config: Any) -> None:
        task.seed = 0
        super().__init__(task, config)


class Miscounts(DdpoSf):
    def step(self) -> dict[str, float]:
        self.policy.ledger.add("images", 1)
        return super().step()


class ForgetsSteps(DdpoSf):
    def step(self) -> dict[str, float]:
        self.policy.ledger.add("optimizer_steps", -1)
        return super().step()


class OwnShareAlone(DdpoSf):
    """Leaves the gradients of the other processes out."""

    def __init__(self, task: Any, config: Any) -> None:
        super().__init__(task, config)
        self.optimizer.step = self.step_alone  # type: ignore[method-assign]

    def step_alone(self) -> float:
        self.optimizer.adamw.step()
        self.optimizer.adamw.zero_grad()
        return 0.0


class MeanOfShare(DdpoSf):
    """Divides by its own samples, then adds up."""

    def update(self, trajectories: Any, advantage: Tensor) -> dict[str, float]:
        return super().update(trajectories, advantage * processes.count())


class FailsInOneProcess(DdpoSf):
    """One process fails while the other waits for it."""

    def step(self) -> dict[str, float]:
        if processes.count() > 1 and processes.share(2).start == 1:
            raise RuntimeError("out of memory")
        return super().step()


class JoinsGroups(DdpoSf):
    several_processes = False

    def __init__(self, task: Any, config: Any) -> None:
        type(self).several_processes = True
        try:
            super().__init__(task, config)
        finally:
            type(self).several_processes = False


class Truncates(DdpoSf):
    """Centres rewards in their own type, which cuts the fractions of whole numbers."""

    def __init__(self, task: Any, config: Any) -> None:
        super().__init__(task, config)
        reward = task.reward

        def centred(images: Tensor, prompts: list[str]) -> Tensor:
            values = reward(images, prompts)
            mean = values.float().mean()
            return torch.where(values > mean, (values - mean).to(values.dtype), values)

        task.reward = centred


class DividesBySpread(DdpoSf):
    def step(self) -> dict[str, float]:
        metrics = super().step()
        return {**metrics, "ratio": 1 / metrics["reward_std"]}


class GoesOn(DdpoSf):
    def step(self) -> dict[str, float]:
        try:
            return super().step()
        except Exception:
            return {"reward_mean": 0.0, "reward_std": 0.0}


class ChangesThenFails(DdpoSf):
    def step(self) -> dict[str, float]:
        nudge(self)
        sampling.sample_round(self.task, self.round, self.config)
        return super().step()


class BatchDependent(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        values = super().score(images, prompts)
        return values - values.mean()


class WrongRange(Tint):
    range = (0.0, 0.01)


class GivesNaN(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return super().score(images, prompts) * float("nan")


class PerPixel(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return images.mean(1)


class Fails(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        raise RuntimeError("out of\npaint")


class Unitless(Tint):
    unit = ""


class Cost(Tint):
    higher_is_better = False  # type: ignore[assignment]


class Washed(Tint):
    """Brings pictures from [-1, 1] to [0, 1] though they are there already."""

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        return super().__call__(images / 2 + 0.5, prompts)


class Network(Tint):
    def __init__(self, training: bool, frozen: bool) -> None:
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(1), nn.Dropout(0.0))
        with torch.random.fork_rng(devices=[]):
            self.net(torch.zeros(1, 3, 64, 64))
        self.net.train(training).requires_grad_(not frozen)

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return self.net(images)[:, 0]


class InTraining(Network):
    def __init__(self) -> None:
        super().__init__(training=True, frozen=True)


class Unfrozen(Network):
    def __init__(self) -> None:
        super().__init__(training=False, frozen=False)


class Random(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return super().score(images, prompts) + 0.01 * torch.rand(len(images))


class Drifts(Tint):
    calls = 0

    def score(self, images: Tensor, prompts: Any) -> Tensor:
        self.calls += 1
        return super().score(images, prompts) + 1e-4 * self.calls


class InPlace(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return super().score(images.mul_(0.5), prompts)


class ReadsPrompts(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return super().score(images, prompts) + torch.tensor([float("fox" in p) for p in prompts])


class IgnoresPrompts(Tint):
    needs_prompt = True


class HalfPrecise(Tint):
    def _fp32_score(self, formula: Any, images: Tensor, prompts: Any) -> Tensor:
        weight = torch.linspace(-1, 1, images[0].numel()) / 100
        return (images.flatten(1) @ weight[:, None])[:, 0].float()


class Detached(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        return super().score(images.detach(), prompts)


class HiddenGradient(Tint):
    differentiable = False

    def differentiable_score(self, images: Tensor, prompts: Any) -> Tensor:
        return self.score(images, prompts)


class OtherFormula(Tint):
    def differentiable_score(self, images: Tensor, prompts: Any) -> Tensor:
        return 1.01 * super().differentiable_score(images, prompts)


class WrongGradient(Tint):
    def score(self, images: Tensor, prompts: Any) -> Tensor:
        right, wrong = super().score(images, prompts), images[:, 1].mean((1, 2))
        return right.detach() + wrong - wrong.detach()


class Unchecked(Tint):
    def _checked(self, images: Tensor, prompts: Any) -> Tensor:
        return images
