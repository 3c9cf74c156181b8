"""Encoders: one contract, and optional ones on tiny checkpoints in their release's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import encoders
from benchmark.encoders import clip, dinov2
from benchmark.suite import EvaluationSettings
from tests.benchmark.conftest import Command, one_line_error

CPU = torch.device("cpu")
OPTIONAL = ("clip", "dinov2")


def tiny_clip(folder: Path) -> Any:
    """Both towers in one checkpoint, as released."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "projection_dim": 24}
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": 64},
        vision_config=sizes | {"image_size": 28, "patch_size": 14},
        projection_dim=24,
    )
    return save(CLIPModel, config, folder)


def tiny_dinov2(folder: Path) -> Any:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Dinov2Config(**sizes, mlp_ratio=2, image_size=56, patch_size=14)
    return save(Dinov2Model, config, folder)


def save(kind: Any, config: Any, folder: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(config).eval()
    network.save_pretrained(folder, safe_serialization=True)
    return network


def pictures() -> torch.Tensor:
    """8-bit pictures, wider than high."""
    levels = torch.randint(0, 256, (3, 3, 40, 64), generator=torch.Generator().manual_seed(1))
    return levels.float() / 255


def processed(kind: Any, images: torch.Tensor, **settings: Any) -> torch.Tensor:
    """By the release's own preprocessing, of pictures as files have them."""
    arrays = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    processor = kind(do_convert_rgb=True, do_rescale=True, do_normalize=True, **settings)
    files = [Image.fromarray(array) for array in arrays]
    return torch.as_tensor(np.stack(processor(files, return_tensors="np")["pixel_values"]))


def test_the_suite_knows_exactly_the_encoders() -> None:
    names = get_args(get_args(EvaluationSettings.model_fields["encoders"].annotation)[0])
    assert sorted(names) == list(encoders.registry())


def test_clip_is_the_checkpoint_s_projected_embedding(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor

    network, images = tiny_clip(tmp_path), pictures()
    features = clip.load_folder(tmp_path, CPU)(images)
    assert features.shape == (3, 24)
    size = {"shortest_edge": 28}, {"height": 28, "width": 28}
    pixels = processed(CLIPImageProcessor, images, size=size[0], crop_size=size[1])
    with torch.no_grad():
        expected = network.visual_projection(network.vision_model(pixels).pooler_output)
    cosine = torch.nn.functional.cosine_similarity(features, expected)
    assert (cosine > 0.999).all()  # bicubic resampling rounds to 8 bits there


def test_dinov2_is_the_checkpoint_s_class_token(tmp_path: Path) -> None:
    from transformers import BitImageProcessor

    network, images = tiny_dinov2(tmp_path), pictures()
    features = dinov2.load_folder(tmp_path, CPU)(images)
    assert features.shape == (3, 32)
    pixels = processed(
        BitImageProcessor,
        images,
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=list(dinov2.MEAN),
        image_std=list(dinov2.STD),
        resample=3,
    )
    with torch.no_grad():
        expected = network(pixel_values=pixels).last_hidden_state[:, 0]
    cosine = torch.nn.functional.cosine_similarity(features, expected)
    assert (cosine > 0.999).all()


@pytest.mark.parametrize("build", [(tiny_clip, clip), (tiny_dinov2, dinov2)])
def test_loading_draws_nothing_and_encoding_changes_nothing(tmp_path: Path, build: Any) -> None:
    make, module = build
    make(tmp_path)
    state = torch.get_rng_state()
    encode = module.load_folder(tmp_path, CPU)
    images = pictures()
    first = encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, pictures()) and not first.requires_grad
    torch.testing.assert_close(encode(images[1:2]), first[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_one_names_the_command_that_fetches_it(
    benchmark_command: Command,
    tiny_suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    change = f"evaluation.encoders=[{name}]"
    done = benchmark_command("run", "--suite", tiny_suite, "--dry-run", "--set", change)
    message = one_line_error(done, 4)
    assert f"encoder {name!r} needs weights that are not here; `hf download " in message
