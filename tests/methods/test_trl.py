"""TRL's trainers: that they are driven as they run alone, and that our methods agree with them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import methods
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.rollout import initial_latents
from methods import advantages, sampling, trl_adapter
from methods.trl_trainer import NEVER
from tests.how_we_know import Record
from tests.methods.conftest import (
    ROUND,
    STEPS,
    gradient_of,
    make_method,
    make_task,
    optimizer_of,
)
from tests.methods.point import PointPolicy

if reason := trl_adapter.unavailable():
    pytest.skip(f"every test here {reason}", allow_module_level=True)

MakePolicy = Callable[..., LatentDiffusion]
LORA = {"lora_rank": 4}
"""TRL's adapters: rank 4, alpha 4, on the same projections."""
AS_TRL = {
    "advantage": "batch",
    "inner_epochs": 1,
    "step_weight": "uniform",
    "initial_noise": "independent",
}
"""What ``ddpo`` has to be told to be TRL's, beside training on all transitions."""


def trained(policy: LatentDiffusion, name: str, **options: Any) -> tuple[Any, list[torch.Tensor]]:
    """The method after a round of one update, and the gradient of that."""
    options = {"updates_per_round": 1, "learning_rate": 3e-4, **ROUND, **options}
    options["gradient_clip"] = 1e9
    method = make_method(name, make_task(policy), **options)
    method.step()
    return method, gradient_of(optimizer_of(method))


def distance(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Of all the numbers together, relative."""
    one, other = (torch.cat([t.detach().flatten() for t in side]) for side in (ours, theirs))
    assert one.norm() > 0
    return float((one - other).norm() / one.norm())


def in_float32(policy: LatentDiffusion) -> LatentDiffusion:
    """The policy with TRL's schedule arithmetic: alphas, and all that is made of them, float32."""
    alphas = policy.schedule.alphas_cumprod.float()
    policy.schedule = dataclasses.replace(policy.schedule, alphas_cumprod=alphas)
    return policy


def test_one_update_of_ddpo_is_that_of_trl(tiny_policy: MakePolicy, evidence: Record) -> None:
    ours, theirs = tiny_policy(**LORA), tiny_policy(**LORA)
    start = [p.detach().clone() for p in ours.parameters()]
    _, gradient = trained(ours, "ddpo", **AS_TRL)
    _, gradient_of_trl = trained(theirs, "trl-ddpo")
    assert distance(start, ours.parameters()) > 1e-3
    evidence(
        "one update of ddpo is TRL's, LoRA parameters",
        distance(ours.parameters(), theirs.parameters()),
        1e-4,
        "theta of ddpo and of trl-ddpo (TRL 0.23.1), same weights and noise, relative",
    )
    evidence(
        "one update of ddpo is TRL's, gradient",
        distance(gradient, gradient_of_trl),
        2e-4,
        "gradient of ddpo and of trl-ddpo (TRL 0.23.1), same weights and noise, relative",
    )


def test_what_is_left_is_rounding_and_the_epsilon(
    tiny_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch, evidence: Record
) -> None:
    """TRL makes 1 - alpha_t / alpha_s and 1 - alpha_s - sigma^2, of order 1e-3, of float32 alphas,
    and adds 1e-8 to the deviation of the rewards where we add 1e-6 of (1 + their mean)."""

    def standardise(values: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return (values - reference.mean()) / (reference.std(correction=0) + 1e-8)

    _, gradient_of_trl = trained(tiny_policy(**LORA), "trl-ddpo")
    _, gradient = trained(tiny_policy(**LORA), "ddpo", **AS_TRL)
    monkeypatch.setattr(advantages, "standardise", standardise)
    _, with_epsilon = trained(tiny_policy(**LORA), "ddpo", **AS_TRL)
    _, with_both = trained(in_float32(tiny_policy(**LORA)), "ddpo", **AS_TRL)
    apart = [distance(ours, gradient_of_trl) for ours in (gradient, with_epsilon, with_both)]
    assert apart == sorted(apart, reverse=True)
    evidence(
        "one update of ddpo is TRL's, gradient, with its rounding and epsilon",
        apart[2],
        2e-5,
        "as above, with float32 alphas and rewards over (deviation + 1e-8) in ddpo, relative",
    )


@pytest.mark.parametrize(
    "options", [{"truncation": "full"}, {"last_steps": 1}, {"last_steps": 3}], ids=str
)
def test_one_update_of_alignprop_is_that_of_trl(
    tiny_policy: MakePolicy, options: dict[str, Any], evidence: Record
) -> None:
    ours, theirs = tiny_policy(**LORA), tiny_policy(**LORA)
    _, gradient = trained(ours, "alignprop", **options)
    _, gradient_of_trl = trained(theirs, "trl-alignprop", **options)
    evidence(
        "one update of alignprop is TRL's, LoRA parameters",
        distance(ours.parameters(), theirs.parameters()),
        1e-4,
        "theta of alignprop and of trl-alignprop (TRL 0.23.1), full, last 1, last 3, relative",
    )
    evidence(
        "one update of alignprop is TRL's, gradient",
        distance(gradient, gradient_of_trl),
        1e-4,
        "gradient of alignprop and of trl-alignprop (TRL 0.23.1), full, last 1, last 3, relative",
    )


class Alone:
    """TRL on its own pipeline, loaded by it from the folder: nothing of the adapter."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, policy: LatentDiffusion, name: str
    ) -> None:
        import trl
        from trl.models import modeling_sd_base

        self.policy, self.task = policy, make_task(policy)
        shape: Any = methods.get(name).Config(**ROUND)
        prompts, self.generators = sampling.draw_round(self.task, 0, shape)
        self.prompts = list(prompts)
        self.pipeline = trl.DefaultDDPOStableDiffusionPipeline(str(folder))
        kind = {"trl-ddpo": "DDPO", "trl-alignprop": "AlignProp"}[name]
        sampled = {"sample_batch_size": 8, "sample_num_batches_per_epoch": 1}
        backprop = {"truncated_backprop_rand": False, "truncated_backprop_timestep": STEPS - 2}
        config = getattr(trl, f"{kind}Config")(
            accelerator_kwargs={"cpu": True},
            mixed_precision="no",
            save_freq=NEVER,
            sample_num_steps=STEPS,
            sample_guidance_scale=policy.guidance_scale,
            train_batch_size=8,
            train_learning_rate=3e-4,
            train_max_grad_norm=1e9,
            **({"train_clip_range": 3e-3, **sampled} if kind == "DDPO" else backprop),
        )
        reward: Any = self.task.reward if kind == "DDPO" else self.task.reward_gradient
        self.trainer = getattr(trl, f"{kind}Trainer")(
            config,
            lambda images, prompts, _: (reward(images, list(prompts)), {}),
            lambda: (self.prompts.pop(0), {}),
            self.pipeline,
        )
        self.named = {
            name: p for name, p in self.pipeline.unet.named_parameters() if p.requires_grad
        }
        assert self.named.keys() == policy.state_dict().keys()
        with torch.no_grad():
            for parameter, value in policy.state_dict().items():
                self.named[parameter].copy_(value)
        monkeypatch.setattr(
            self.pipeline.sd_pipeline,
            "prepare_latents",
            lambda *_: initial_latents(policy, self.generators),
        )
        monkeypatch.setattr(
            modeling_sd_base,
            "randn_tensor",
            lambda *_, **__: torch.stack(
                [torch.randn(policy.latent_shape, generator=g) for g in self.generators]
            ),
        )


@pytest.mark.parametrize("name", ["trl-ddpo", "trl-alignprop"])
def test_the_adapter_trains_as_trl_does_alone(
    tiny_policy: MakePolicy,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    evidence: Record,
) -> None:
    """TRL loads the model folder through diffusers, encodes, samples, decodes and trains it."""
    with monkeypatch.context() as patched, pytest.warns(DeprecationWarning):
        alone = Alone(patched, tiny_model, tiny_policy(**LORA), name)
        alone.trainer.step(0, 0)
    policy = tiny_policy(**LORA)
    start = [p.detach().clone() for p in policy.parameters()]
    _, gradient = trained(policy, name)
    adamw = alone.trainer.optimizer.optimizer
    gradient_alone = [10 * adamw.state[p]["exp_avg"] for p in alone.named.values()]
    assert distance(start, policy.parameters()) > 1e-3
    evidence(
        f"{name} trains as TRL does alone, LoRA parameters",
        distance(list(alone.named.values()), policy.parameters()),
        1e-4,
        "theta of TRL 0.23.1 by the adapter and on its own diffusers pipeline, relative",
    )
    evidence(
        f"{name} trains as TRL does alone, gradient",
        distance(gradient_alone, gradient),
        2e-4,
        "gradient of TRL 0.23.1 by the adapter and on its own diffusers pipeline, relative",
    )


def test_its_defaults_are_the_released_settings() -> None:
    import trl

    ddpo, alignprop = trl.DDPOConfig(), trl.AlignPropConfig()
    own = methods.get("trl-ddpo")
    config: Any = own.Config(**own.RELEASED["trl"])
    assert (config.learning_rate, config.ratio_clip) == (
        ddpo.train_learning_rate,
        ddpo.train_clip_range,
    )
    assert (config.weight_decay, config.gradient_clip, config.advantage_clip) == (
        ddpo.train_adam_weight_decay,
        ddpo.train_max_grad_norm,
        ddpo.train_adv_clip_max,
    )
    assert config.timestep_fraction == ddpo.train_timestep_fraction
    assert (config.advantage == "batch") is not ddpo.per_prompt_stat_tracking
    own = methods.get("trl-alignprop")
    config = own.Config(**own.RELEASED["trl"])
    assert config.learning_rate == alignprop.train_learning_rate
    assert (config.truncation == "random-per-step") is alignprop.truncated_backprop_rand


@pytest.mark.parametrize("name", ["trl-ddpo", "trl-alignprop"])
def test_global_generators_are_left_alone(name: str) -> None:
    def state() -> list[Any]:
        numpy = np.random.get_state(legacy=False)["state"]["key"].tolist()
        return [random.getstate(), numpy, torch.get_rng_state().tolist()]

    options = {} if name == "trl-ddpo" else {"truncation": "random-per-step"}
    before = state()
    first = make_method(name, make_task(PointPolicy()), **ROUND, **options).step()
    assert state() == before
    torch.manual_seed(5)
    random.seed(5)
    second = make_method(name, make_task(PointPolicy()), **ROUND, **options).step()
    assert first == second


def test_random_truncation_always_leaves_a_gradient() -> None:
    norms = []
    for seed in range(20):
        task = make_task(PointPolicy(steps=2), seed=seed)
        method = make_method("trl-alignprop", task, truncation="random-per-step", **ROUND)
        norms.append(method.step()["gradient_norm"])
    assert min(norms) > 0


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    policy = PointPolicy()

    def broken(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3)) * torch.nan

    method = make_method("trl-ddpo", make_task(policy, reward=broken), **ROUND)
    with pytest.raises(RuntimeError, match="gradient is not finite"):
        method.step()
    assert torch.equal(policy.mean, torch.zeros(3, 1, 1))
