"""The flow network of DAG."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, DownBlock2D
from torch import nn

from diffusion.flow import FlowNetwork
from diffusion.kernel import make_schedule
from diffusion.policy import Conditioning
from diffusion.randomness import generator
from tests.diffusion.conftest import MakePolicy
from tests.diffusion.schedules import STABLE_DIFFUSION

TIMESTEPS = make_schedule(STABLE_DIFFUSION, 50).timesteps
TEXT_WIDTH = 24


def build(size: int, seed: int = 0) -> FlowNetwork:
    return FlowNetwork.create((4, size, size), TEXT_WIDTH, TIMESTEPS, generator(seed, "flow"))


def inputs(size: int, n: int = 3) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    latents = torch.randn(n, 4, size, size, generator=generator(0, "latents"))
    text = torch.randn(n, 7, TEXT_WIDTH, generator=generator(0, "text"))
    return latents, torch.arange(n) * 20, Conditioning(text, text[:1])


@pytest.mark.parametrize(
    ("size", "stages"),
    [(4, [64]), (8, [64]), (16, [64, 128]), (64, [64, 128, 256, 256])],
)
def test_stages_reach_four_by_four(size: int, stages: list[int]) -> None:
    flow = build(size)
    names = [f"stages.{index}.resnets.0.conv2.weight" for index in range(len(stages))]
    assert [len(flow.get_parameter(name)) for name in names] == stages
    kinds = [type(stage) for stage in flow.stages]
    assert kinds[:-1] == [CrossAttnDownBlock2D] * (len(stages) - 1)
    assert kinds[-1] is (DownBlock2D if len(stages) > 1 else CrossAttnDownBlock2D)
    maps: list[torch.Tensor] = []
    flow.stages[-1].register_forward_hook(lambda *call: maps.append(call[2][0]))
    with torch.no_grad():
        values = flow(*inputs(size, n=2))
    assert values.shape == (2,)
    assert maps[0].shape == (
        2,
        stages[-1],
        max(size >> len(stages), 1),
        max(size >> len(stages), 1),
    )
    assert maps[0].shape[-1] <= 4


def test_values_are_float32_whatever_the_latents_are() -> None:
    latents, step, conditioning = inputs(8)
    flow = build(8)
    half = Conditioning(conditioning.conditional.bfloat16(), conditioning.unconditional.bfloat16())
    values = flow(latents.bfloat16(), step, half)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, flow(latents, step, conditioning), rtol=0.1, atol=0.02)
    assert {parameter.dtype for parameter in flow.parameters()} == {torch.float32}


def test_a_half_precision_policy_has_a_float32_flow(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.bfloat16)
    flow = policy.build_flow(generator(0, "flow"))
    latents = torch.randn(2, *policy.latent_shape, generator=generator(0)).bfloat16()
    values = flow(latents, torch.tensor([0, 3]), policy.encode(["a fox", "an owl"]))
    assert values.dtype == torch.float32 and values.shape == (2,)
    assert {parameter.dtype for parameter in flow.parameters()} == {torch.float32}


def test_it_reads_latent_step_and_prompt() -> None:
    latents, step, conditioning = inputs(8)
    flow = build(8)
    with torch.no_grad():
        values = flow(latents, step, conditioning)
        assert torch.equal(flow(latents, step, conditioning), values)
        order = torch.tensor([2, 0, 1])
        for other in (
            flow(latents[order], step, conditioning),
            flow(latents, step[order], conditioning),
            flow(latents, step, conditioning[order]),
        ):
            assert (other - values).abs().min() > 1e-5
        together = flow(latents[order], step[order], conditioning[order])
        torch.testing.assert_close(together, values[order], rtol=1e-4, atol=1e-5)


def test_the_empty_prompt_is_not_an_input() -> None:
    latents, step, conditioning = inputs(8)
    flow = build(8)
    other = Conditioning(conditioning.conditional, conditioning.unconditional + 1)
    with torch.no_grad():
        assert torch.equal(flow(latents, step, other), flow(latents, step, conditioning))


@pytest.mark.parametrize("size", [8, 64])
def test_every_weight_has_a_gradient(size: int) -> None:
    flow = build(size)
    flow(*inputs(size, n=2)).square().sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name


def test_it_learns_a_target() -> None:
    flow = build(8)
    latents, step, conditioning = inputs(8)
    target = torch.tensor([3.0, -2.0, 0.5])
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        loss = nn.functional.mse_loss(flow(latents, step, conditioning), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_the_generator_decides_the_weights() -> None:
    one, same, other = build(8), build(8), build(8, seed=1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.head.weight, other.head.weight)
