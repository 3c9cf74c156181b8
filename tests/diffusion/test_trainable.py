"""What trains and what never does: LoRA, full fine-tuning, and their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.randomness import generator
from tests.diffusion.conftest import MakePolicy

PROMPTS = ["a fox", "an owl"]
STEP = torch.tensor([0, 2])
LATENTS = torch.randn(2, 4, 8, 8, generator=generator(0, "latents"))


def predict(policy: LatentDiffusion) -> torch.Tensor:
    with torch.no_grad():
        return policy.predict_noise(LATENTS, STEP, policy.encode(PROMPTS)).guided


def untrained_prediction(folder: Path, guidance_scale: float) -> torch.Tensor:
    return pipeline_prediction(
        StableDiffusionPipeline.from_pretrained(folder, safety_checker=None), guidance_scale
    )


@torch.no_grad()
def pipeline_prediction(pipe: StableDiffusionPipeline, guidance_scale: float) -> torch.Tensor:
    """Guided noise prediction as any program that uses diffusers computes it."""
    pipe.scheduler.set_timesteps(4)
    timesteps = pipe.scheduler.timesteps[STEP]
    states, empty = pipe.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=True)
    conditional = pipe.unet(LATENTS, timesteps, states).sample
    unconditional = pipe.unet(LATENTS, timesteps, empty).sample
    return unconditional + guidance_scale * (conditional - unconditional)


def train(policy: LatentDiffusion, steps: int = 3) -> None:
    """Push the prediction towards zero."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    conditioning = policy.encode(PROMPTS)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = policy.predict_noise(LATENTS, STEP, conditioning).guided.square().mean()
        loss.backward()
        optimizer.step()


def test_lora_is_on_the_attention_projections_alone(make_policy: MakePolicy) -> None:
    policy = make_policy(lora_rank=3)
    projections = [
        name
        for name, module in policy.unet.named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")) and hasattr(module, "base_layer")
    ]
    state = policy.state_dict()
    assert len(projections) == 2 * 4 * 4  # self and cross in each of four transformer blocks
    assert len(state) == 2 * len(projections) == len(policy.parameters())
    for name, value in state.items():
        assert value.shape[0 if "lora_A" in name else 1] == 3
    assert {id(p) for p in policy.unet.parameters() if p.requires_grad} == {
        id(p) for p in policy.parameters()
    }


def test_lora_starts_exactly_untrained(make_policy: MakePolicy) -> None:
    policy = make_policy(lora_rank=8, lora_alpha=16)
    before = predict(policy)
    with policy.base():
        assert torch.equal(predict(policy), before)
    values = policy.state_dict()
    assert all((value == 0).all() for name, value in values.items() if "lora_B" in name)
    a = torch.cat([value.flatten() for name, value in values.items() if "lora_A" in name])
    assert a.mean().abs() < 0.01
    assert a.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_training_changes_the_adapters_and_nothing_else(make_policy: MakePolicy) -> None:
    policy = make_policy()
    trained = set(policy.state_dict())

    def frozen() -> dict[str, torch.Tensor]:
        modules = {"unet": policy.unet, "vae": policy.vae, "text": policy.text_encoder}
        return {
            f"{part}.{name}": value.clone()
            for part, module in modules.items()
            for name, value in module.state_dict().items()
            if name not in trained
        }

    before, predicted = frozen(), predict(policy)
    train(policy)
    after = frozen()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (predict(policy) - predicted).abs().max() > 1e-2


def test_base_is_the_untrained_model(make_policy: MakePolicy, tiny_model: Path) -> None:
    policy = make_policy()
    train(policy)
    trained, state = predict(policy), policy.state_dict()
    untrained = untrained_prediction(tiny_model, policy.guidance_scale)
    assert (trained - untrained).abs().max() > 1e-2
    with policy.base():
        torch.testing.assert_close(predict(policy), untrained, rtol=1e-4, atol=1e-4)
        assert policy.state_dict().keys() == state.keys()
        assert len(policy.parameters()) == len(state)
    assert torch.equal(predict(policy), trained)
    with pytest.raises(RuntimeError), policy.base():
        raise RuntimeError
    assert torch.equal(predict(policy), trained)
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_base_leaves_a_pending_gradient_alone(make_policy: MakePolicy) -> None:
    policy, reference = make_policy(), make_policy()
    for each in (policy, reference):
        loss = each.predict_noise(LATENTS, STEP, each.encode(PROMPTS)).guided.square().mean()
        if each is policy:
            with each.base():
                predict(each)
        loss.backward()
    for mine, theirs in zip(policy.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_state_restores_the_policy(make_policy: MakePolicy, trainable: str) -> None:
    policy = make_policy(trainable=trainable)
    train(policy)
    state, trained = policy.state_dict(), predict(policy)
    train(policy)
    assert not torch.equal(predict(policy), trained)  # so state holds copies
    policy.load_state_dict(state)
    assert torch.equal(predict(policy), trained)
    other = make_policy(trainable=trainable, seed=1)
    other.load_state_dict(state)
    assert torch.equal(predict(other), trained)


def test_a_state_of_another_rank_is_refused(make_policy: MakePolicy) -> None:
    policy = make_policy(lora_rank=4)
    before = policy.state_dict()
    with pytest.raises(ValueError, match="do not match: .* is .*4.*, not .*1"):
        policy.load_state_dict(make_policy(lora_rank=1).state_dict())
    with pytest.raises(ValueError, match="do not match"):
        policy.load_state_dict(dict(list(before.items())[1:]))
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


@pytest.mark.parametrize(("rank", "alpha"), [(4, None), (4, 16.0), (2, 1.0)])
def test_saved_lora_predicts_the_same_in_diffusers(
    make_policy: MakePolicy, tiny_model: Path, tmp_path: Path, rank: int, alpha: float | None
) -> None:
    policy = make_policy(lora_rank=rank, lora_alpha=alpha)
    train(policy)
    policy.save_weights(tmp_path / "lora")
    assert [path.name for path in (tmp_path / "lora").iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    untrained = pipeline_prediction(pipe, policy.guidance_scale)
    pipe.load_lora_weights(tmp_path / "lora")
    loaded = pipeline_prediction(pipe, policy.guidance_scale)
    torch.testing.assert_close(loaded, predict(policy), rtol=1e-4, atol=1e-4)
    assert (loaded - untrained).abs().max() > 1e-2


def test_saving_inside_base_saves_the_adapters(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy()
    train(policy)
    policy.save_weights(tmp_path / "outside")
    with policy.base():
        policy.save_weights(tmp_path / "inside")
    outside, inside = (
        load_file(tmp_path / name / "pytorch_lora_weights.safetensors")
        for name in ("outside", "inside")
    )
    assert outside.keys() == inside.keys()
    assert all(torch.equal(outside[name], inside[name]) for name in outside)


def test_lora_stays_float32_on_a_half_precision_model(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
    before = predict(policy)
    train(policy)
    for name, parameter in policy.trainable.named_parameters().items():
        if "lora_B" in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0
    assert not torch.equal(predict(policy), before)


def test_full_fine_tuning_trains_every_unet_weight(
    make_policy: MakePolicy, tiny_model: Path, tmp_path: Path
) -> None:
    policy = make_policy(trainable="full")
    assert len(policy.parameters()) == len(list(policy.unet.parameters()))
    untrained = untrained_prediction(tiny_model, policy.guidance_scale)
    torch.testing.assert_close(predict(policy), untrained, rtol=1e-4, atol=1e-4)
    before = policy.state_dict()
    train(policy)
    after = policy.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    trained = predict(policy)
    with policy.base():
        torch.testing.assert_close(predict(policy), untrained, rtol=1e-4, atol=1e-4)
    assert torch.equal(predict(policy), trained)

    policy.save_weights(tmp_path / "unet")
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipe.unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    loaded = pipeline_prediction(pipe, policy.guidance_scale)
    torch.testing.assert_close(loaded, trained, rtol=1e-4, atol=1e-4)
