"""Precision, checkpointing, slicing, attention and compilation: the same numbers for less."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.pipelines import Attention, Economies, ModelError
from diffusion.randomness import generator
from tests.diffusion.conftest import MakePolicy

PROMPTS = ["a fox", "an owl"]
STEP = torch.tensor([0, 2])
LATENTS = torch.randn(2, 4, 8, 8, generator=generator(0, "latents"))


def perturbed(policy: LatentDiffusion) -> LatentDiffusion:
    """With adapters that do something."""
    source = generator(1, "adapters")
    state = policy.state_dict()
    policy.load_state_dict(
        {name: torch.randn(v.shape, generator=source) / 10 for name, v in state.items()}
    )
    return policy


def outcome(policy: LatentDiffusion, weight: float = 1.0) -> tuple[torch.Tensor, ...]:
    """Noise prediction, picture, and gradients of a loss of both in latents and adapters."""
    perturbed(policy)
    latents = LATENTS.clone().requires_grad_()
    noise = policy.predict_noise(latents, STEP, policy.encode(PROMPTS)).guided
    images = policy.decode(latents + noise)
    loss = weight * (noise.square().mean() + images.square().mean())
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert latents.grad is not None
    return noise.detach(), images.detach(), latents.grad / weight, gradient / weight


@pytest.mark.parametrize(
    "economies",
    [
        Economies(gradient_checkpointing=True),
        Economies(vae_slicing=True),
        Economies(attention="eager"),
        Economies(attention="sliced"),
        Economies(gradient_checkpointing=True, vae_slicing=True, attention="sliced"),
    ],
    ids=str,
)
def test_economies_leave_numbers_alone(make_policy: MakePolicy, economies: Economies) -> None:
    for expected, found in zip(
        outcome(make_policy()), outcome(make_policy(economies=economies)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_checkpointing_computes_blocks_again(make_policy: MakePolicy) -> None:
    calls = {True: 0, False: 0}
    for checkpointing in calls:
        policy = make_policy(economies=Economies(gradient_checkpointing=checkpointing))

        def count(*_: object, which: bool = checkpointing) -> None:
            calls[which] += 1

        policy.unet.down_blocks[0].resnets[0].register_forward_pre_hook(count)
        outcome(policy)
    assert calls == {False: 1, True: 2}


def test_half_precision_trains_adapters_in_single(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float16)
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert policy.unet.conv_in.weight.dtype == policy.text_encoder.dtype == torch.float16
    assert policy.vae.dtype == policy.dtype == torch.float32
    flow = policy.build_flow(generator(0, "flow"))
    assert {p.dtype for p in flow.parameters()} == {torch.float32}
    for expected, found in zip(outcome(make_policy()), outcome(policy), strict=True):
        error = (found - expected).norm() / expected.norm()
        assert error < 0.02


def test_gradients_too_small_for_half_precision_survive(make_policy: MakePolicy) -> None:
    """Those of a loss averaged over thousands of transitions lie below the least float16."""
    *_, expected = outcome(make_policy())
    *_, latents, found = outcome(make_policy(dtype=torch.float16), weight=1e-6)
    assert (found - expected).norm() / expected.norm() < 0.02
    assert torch.isfinite(latents).all() and latents.abs().max() > 0


def test_a_whole_unet_in_half_precision_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(ValueError, match="does not train in float16"):
        make_policy(dtype=torch.float16, trainable="full")


def test_xformers_that_cannot_be_used_is_one_line(make_policy: MakePolicy) -> None:
    """Neither where it is not installed nor without a GPU."""
    if importlib.util.find_spec("xformers") and torch.cuda.is_available():
        pytest.skip("xformers is installed, and there is a GPU")
    attention: Attention = "xformers"
    with pytest.raises(ModelError, match="attention xformers cannot be used") as error:
        make_policy(economies=Economies(attention=attention))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_compiled_numbers_are_the_same(make_policy: MakePolicy) -> None:
    compiled = make_policy(economies=Economies(compile=True))
    for expected, found in zip(outcome(make_policy()), outcome(compiled), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    with compiled.base(), torch.no_grad():
        base = compiled.predict_noise(LATENTS, STEP, compiled.encode(PROMPTS)).guided
    plain = make_policy()
    with plain.base(), torch.no_grad():
        expected = plain.predict_noise(LATENTS, STEP, plain.encode(PROMPTS)).guided
    torch.testing.assert_close(base, expected, rtol=1e-3, atol=1e-5)
