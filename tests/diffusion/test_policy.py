"""The policy agrees with diffusers' own pipeline, and draws nothing from global generators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.policy import Conditioning
from diffusion.randomness import generator
from diffusion.rollout import rollout, sample
from tests.diffusion.conftest import MakePolicy
from tests.how_we_know import Record, distance

PROMPTS = ["a fox, fluent style, on a blue background", "an owl"]


@pytest.fixture
def pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 4, 8, 8, generator=generator(1, "noise"))


def test_text_states_are_the_pipeline_s(
    policy: LatentDiffusion, pipeline: StableDiffusionPipeline
) -> None:
    states, empty = pipeline.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=True)
    conditioning = policy.encode(PROMPTS)
    assert len(conditioning) == 2
    torch.testing.assert_close(conditioning.conditional, states)
    torch.testing.assert_close(conditioning.unconditional, empty[:1])
    assert not conditioning.conditional.requires_grad


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0])
def test_guidance_combines_the_two_branches(
    make_policy: MakePolicy, pipeline: StableDiffusionPipeline, guidance_scale: float
) -> None:
    policy = make_policy(guidance_scale=guidance_scale)
    conditioning = policy.encode(PROMPTS)
    step = torch.tensor([0, 2])
    with torch.no_grad():
        prediction = policy.predict_noise(noise(), step, conditioning)
        alone = policy.predict_conditional_noise(noise(), step, conditioning)
        timesteps = policy.schedule.timesteps[step]
        empty = conditioning.unconditional.expand(2, -1, -1)
        conditional = pipeline.unet(noise(), timesteps, conditioning.conditional).sample
        unconditional = pipeline.unet(noise(), timesteps, empty).sample
    guided = unconditional + guidance_scale * (conditional - unconditional)
    assert not torch.allclose(conditional, unconditional, atol=1e-4)
    torch.testing.assert_close(prediction.guided, guided, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.conditional, conditional, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone, conditional, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [3, 10])
def test_samples_are_the_pipeline_s(
    make_policy: MakePolicy,
    pipeline: StableDiffusionPipeline,
    eta: float,
    steps: int,
    evidence: Record,
) -> None:
    """Same generators, same latents: the pipeline with DDIM draws its noise in the same order."""
    policy = make_policy(sampling_steps=steps)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    expected = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=policy.guidance_scale,
        eta=eta,
        generator=[generator(0, index) for index in range(2)],
        output_type="latent",
    ).images
    ours = sample(policy, PROMPTS, [generator(0, index) for index in range(2)], eta=eta)
    evidence(
        "samples are those of diffusers' Stable Diffusion pipeline",
        distance(ours, expected),
        1e-4,
        "x_0 and StableDiffusionPipeline(output_type='latent'), same generators, eta 0, 0.5, 1",
    )


def test_images_are_the_pipeline_s(
    policy: LatentDiffusion, pipeline: StableDiffusionPipeline, evidence: Record
) -> None:
    latents = 3 * noise()
    with torch.no_grad():
        images = policy.decode(latents)
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    expected = pipeline.image_processor.postprocess(decoded, output_type="pt")
    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == torch.float32
    evidence(
        "decoded images are those of diffusers' Stable Diffusion pipeline",
        distance(images, expected),
        1e-5,
        "Dec(x_0) in [0, 1] and vae.decode with VaeImageProcessor.postprocess",
    )
    assert images.min() >= 0 and images.max() <= 1


def test_decoding_passes_the_gradient(policy: LatentDiffusion) -> None:
    latents = noise().requires_grad_()
    policy.decode(latents).mean().backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all() and latents.grad.abs().max() > 0


def test_timesteps_stay_whole_in_half_precision(make_policy: MakePolicy) -> None:
    """bfloat16 has no 981; the UNet must not be given 980."""
    policy = make_policy(dtype=torch.bfloat16, sampling_steps=50)
    seen: list[torch.Tensor] = []

    def record(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[1])

    policy.unet.register_forward_pre_hook(record)
    with torch.no_grad():
        prediction = policy.predict_noise(noise(), torch.tensor([0, 24]), policy.encode(PROMPTS))
    assert seen[0].tolist() == [981, 501, 981, 501]
    assert prediction.guided.dtype == torch.float32


def test_conditioning_is_indexed_by_prompt() -> None:
    conditioning = Conditioning(torch.arange(4.0)[:, None, None], torch.zeros(1, 1, 1))
    for index in (slice(1, 3), torch.tensor([1, 2]), [1, 2]):
        chosen = conditioning[index]
        assert chosen.conditional.flatten().tolist() == [1, 2]
        assert len(chosen) == 2 and len(chosen.unconditional) == 1


def global_states() -> tuple[object, ...]:
    return (
        random.getstate(),
        repr(np.random.get_state(legacy=False)),
        torch.random.get_rng_state().numpy().tobytes(),
    )


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_global_generators_are_left_alone(make_policy: MakePolicy, trainable: str) -> None:
    before = global_states()
    policy = make_policy(trainable=trainable)
    assert global_states() == before
    trajectories = rollout(policy, PROMPTS, [generator(0, index) for index in range(2)])
    assert global_states() == before
    flow = policy.build_flow(generator(0, "flow"))
    assert global_states() == before
    step = torch.zeros(2, dtype=torch.long)
    prediction = policy.predict_noise(trajectories.final, step, trajectories.conditioning)
    log_flow = flow(trajectories.final, step, trajectories.conditioning)
    (prediction.guided.mean() + log_flow.mean()).backward()
    assert global_states() == before


def test_the_global_seed_decides_nothing(make_policy: MakePolicy) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = make_policy(seed=5)
        torch.manual_seed(2)
        other = make_policy(seed=5)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    different = make_policy(seed=6).state_dict()
    assert any(not torch.equal(value, different[name]) for name, value in one.state_dict().items())
