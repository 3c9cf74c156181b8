"""SDXL through the same policy, on a tiny pipeline of its own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.pipelines import ModelError, load_pipeline, load_policy
from diffusion.policy import Conditioning
from diffusion.randomness import generator
from diffusion.rollout import rollout, sample
from methods import replay
from tests.conftest import CONTEXT_LENGTH, byte_tokenizer_files, tiny_vae

PROMPTS = ["a fox", "an owl", "a fox"]
STEP = torch.tensor([0, 2, 1])
LATENTS = torch.randn(3, 4, 8, 8, generator=generator(0, "latents"))


def text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build(folder: Path, zero_empty: bool) -> Path:
    byte_tokenizer_files(folder / "tokenizer")
    tokenizer: Any = CLIPTokenizer.from_pretrained(
        folder / "tokenizer", model_max_length=CONTEXT_LENGTH
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline: Any = StableDiffusionXLPipeline(
            text_encoder=CLIPTextModel(text_config(tokenizer, 16)),
            text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, 24)),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(16, 16),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2),
                cross_attention_dim=40,
                attention_head_dim=2,
                norm_num_groups=4,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=24 + 6 * 8,
            ),
            vae=tiny_vae(),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            force_zeros_for_empty_prompt=zero_empty,
        )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["zeros", "encoded"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sdxl"), request.param)


def make(folder: Path, **settings: Any) -> LatentDiffusion:
    defaults: dict[str, Any] = {"seed": 0, "sampling_steps": 4, "guidance_scale": 3.0}
    return load_policy(str(folder), ledger=Ledger(), **(defaults | settings))


def test_pictures_are_the_pipelines(folder: Path) -> None:
    """diffusers' own pipeline, its conditioning and its DDIM sampler at eta 0 among it."""
    policy = make(folder)
    pipeline = load_pipeline(str(folder))
    source = generator(0, "picture")
    ours = policy.decode(sample(policy, ["a fox"], [source], eta=0.0))
    noise = torch.randn(1, 4, 8, 8, generator=generator(0, "picture"))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a fox", latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="pt"
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_pooled_states_go_along(folder: Path) -> None:
    policy = make(folder)
    trajectories = rollout(policy, PROMPTS, [generator(0, i) for i in range(3)], batch_size=2)
    pooled = trajectories.conditioning.pooled
    assert pooled is not None and pooled.shape == (3, 24)
    torch.testing.assert_close(pooled[0], pooled[2])  # from batches of two sizes
    assert not torch.allclose(pooled[0], pooled[1])
    transitions = replay.gather(policy, trajectories, torch.tensor([2, 1]), torch.tensor([0, 3]))
    density, _ = replay.current_density(policy, transitions, "mean")
    torch.testing.assert_close(density, transitions.log_density, rtol=1e-4, atol=1e-5)
    density.sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_adapters_load_into_the_pipeline(folder: Path, tmp_path: Path) -> None:
    policy = make(folder)
    state = policy.state_dict()
    source = generator(2, "adapters")
    policy.load_state_dict({n: torch.randn(v.shape, generator=source) for n, v in state.items()})
    policy.save_weights(tmp_path / "lora")
    pipeline = load_pipeline(str(folder))
    pipeline.load_lora_weights(tmp_path / "lora")
    c = policy.encode(PROMPTS)
    assert c.pooled is not None
    with torch.no_grad():
        ours = policy.predict_conditional_noise(LATENTS, STEP, c)
        added = {
            "text_embeds": c.pooled,
            "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(3, -1),
        }
        times = policy.schedule.timesteps[STEP]
        theirs = pipeline.unet(LATENTS, times, c.conditional, added_cond_kwargs=added).sample
        with policy.base():
            assert not torch.allclose(policy.predict_conditional_noise(LATENTS, STEP, c), ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)  # adapters of a size of 1


def test_half_precision_and_the_flow_network(folder: Path) -> None:
    policy = make(folder, dtype=torch.float16)
    c = policy.encode(PROMPTS)
    assert torch.isfinite(policy.predict_noise(LATENTS, STEP, c).guided).all()
    flow = policy.build_flow(generator(0, "flow"))
    assert flow(LATENTS, STEP, c).shape == (3,)


def test_conditioning_without_pooled_states_is_refused(folder: Path) -> None:
    policy = make(folder)
    c = policy.encode(PROMPTS)
    with pytest.raises(ValueError, match="pooled text states"):
        policy.predict_noise(LATENTS, STEP, Conditioning(c.conditional, c.unconditional))


def test_another_kind_of_pipeline_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="is a FluxPipeline, not Stable Diffusion 1 or SDXL"):
        load_pipeline(str(tmp_path))
