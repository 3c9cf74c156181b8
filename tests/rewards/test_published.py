"""Rewards of published releases, each on a tiny network in the release's own files.

That they keep the contract of all rewards is in ``test_reward_contract.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewards import Reward
from rewards.aesthetic_v2 import AestheticV2, load_head
from rewards.clip_l14 import ClipL14
from rewards.hpsv2_1 import HpsV21
from rewards.networks.clip import ClipFile, load_clip
from rewards.networks.head import AffineHead
from rewards.networks.preprocessing import CLIP_MEAN, CLIP_STD, Cropped, padded
from rewards.scorer import DamagedWeights
from tests.how_we_know import Record, distance
from tests.rewards import checkpoints
from tests.rewards.checkpoints import RELEASES

CPU = torch.device("cpu")
PROMPTS = ["a fox in the snow", "An owl, noto style", "two cats " * 60]
"""The last one is longer than 77 tokens."""


def as_files(images: Tensor) -> list[Image.Image]:
    levels = (images * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    return [Image.fromarray(each) for each in levels]


def by_torchvision(images: Tensor, size: int) -> Tensor:
    """The pipeline that OpenAI's CLIP and ImageReward build, of pictures as files have them."""
    from torchvision import transforms

    pipeline = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    return torch.stack([pipeline(picture) for picture in as_files(images)])


@pytest.mark.parametrize("quick", [True, False])
def test_clip_is_what_transformers_computes(quick: bool, tmp_path: Path, evidence: Record):
    """Image and text embeddings of both towers, from the file that transformers writes."""
    network = checkpoints.transformers_clip(24, quick)
    clip = load_clip(checkpoints.clip_in_safetensors(tmp_path, 24, quick), CPU)
    pixels = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    tokens = clip.tokenizer(PROMPTS)
    with torch.no_grad():
        images = F.normalize(network.get_image_features(pixels).pooler_output, dim=1)
        texts = F.normalize(network.get_text_features(tokens).pooler_output, dim=1)
    found = distance(clip.image_embedding(pixels), images)
    found = max(found, distance(clip.text_embedding(PROMPTS), texts))
    evidence(
        "CLIP from transformers' files is transformers' CLIP",
        found,
        2e-6,
        "unit embeddings of pictures and prompts, both activations, random weights",
    )
    assert clip.scale == pytest.approx(math.exp(4.6052))


def test_the_activation_matters(tmp_path: Path):
    file = checkpoints.clip_in_safetensors(tmp_path, 24, quick=True)
    other = ClipFile(file.path, checkpoints.geometry(tmp_path, 24, quick=False))
    pixels = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    quick, exact = (load_clip(each, CPU).image_embedding(pixels) for each in (file, other))
    assert (quick - exact).abs().max() > 1e-4


def test_clip_s_tokens():
    from open_clip import SimpleTokenizer

    tokens = SimpleTokenizer(context_length=77)(["a photo of a cat", "two cats " * 60])
    assert tokens[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokens[1, -1] == 49407 and not tokens[0, 7:].any()


def test_weights_come_back_as_they_were_written(tmp_path: Path):
    """Of HPSv2's files: every tensor of the network is that of the file, in fp32."""
    file = checkpoints.hps_file(tmp_path)
    stored = torch.load(file.path, weights_only=True)["state_dict"]
    used = load_clip(file, CPU).model.state_dict()
    assert stored.keys() == used.keys()
    assert all(used[name].dtype == torch.float32 for name in used)
    assert all(torch.equal(stored[name].float(), used[name]) for name in stored)


def _without(state: dict[str, Tensor]) -> None:
    state.pop("logit_scale")


def _with(state: dict[str, Tensor]) -> None:
    state["visual.extra"] = torch.zeros(1)


def _reshaped(state: dict[str, Tensor]) -> None:
    state["vision_model.post_layernorm.bias"] = torch.zeros(31)


@pytest.mark.parametrize("spoil", [_without, _with, _reshaped])
def test_another_network_is_refused(spoil: Callable[..., None], tmp_path: Path):
    file = checkpoints.clip_in_safetensors(tmp_path, 24, quick=True)
    state = load_file(file.path)
    spoil(state)
    save_file(state, file.path)
    with pytest.raises(DamagedWeights, match="cannot load a CLIP network from") as caught:
        ClipL14(file)(torch.rand(1, 3, 28, 28), ["a fox"])
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_a_file_of_torch_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = checkpoints.hps_file(tmp_path)
    torch.save({"state_dict": Payload()}, file.path)
    with pytest.raises(DamagedWeights):
        HpsV21(file)(torch.rand(1, 3, 28, 28), ["a fox"])
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(("height", "width"), [(512, 512), (333, 500), (64, 48), (224, 224)])
def test_reference_preprocessing(height: int, width: int, varied_images, evidence: Record):
    images = varied_images(6, size=512, seed=2)[:, :, :height, :width]
    found = Cropped(224).reference((images * 255).round() / 255)
    evidence(
        "CLIP's reference preprocessing is torchvision's of PIL pictures",
        distance(found, by_torchvision(images, 224)),
        1e-6,
        "resized, cropped, normalised pixels, four sizes",
    )


@pytest.mark.parametrize(("height", "width"), [(512, 512), (333, 500)])
def test_how_far_differentiable_preprocessing_is(
    height: int, width: int, varied_images, evidence: Record
):
    """In 8-bit levels, of pictures that bicubic does not take out of range."""
    images = 0.2 + 0.6 * varied_images(6, size=512, seed=2)[:, :, :height, :width]
    images = (images * 255).round() / 255
    prepare = Cropped(224)
    off = (prepare.differentiable(images) - prepare.reference(images)).abs()
    levels = 255 * off * torch.tensor(CLIP_STD).view(3, 1, 1)
    for name, figure, most in (("largest", levels.max(), 2.0), ("mean", levels.mean(), 0.5)):
        evidence(
            f"differentiable CLIP preprocessing against Pillow's, {name}",
            float(figure),
            most,
            "|difference| of a pixel in 8-bit levels; Pillow rounds after each of two passes",
        )


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64), (90, 33)])
def test_hpsv2_pads_with_black(height: int, width: int, antialias: bool, varied_images):
    """As the release does, with torchvision's parts on the tensor."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as parts

    images = varied_images(6, size=96, seed=4)[:, :, :height, :width]
    scale = 28 / max(height, width)
    target = [round(height * scale), round(width * scale)]
    resized = parts.resize(images, target, InterpolationMode.BICUBIC, antialias=antialias)
    down, right = 28 - target[0], 28 - target[1]
    sides = [right // 2, down // 2, right - right // 2, down - down // 2]
    expected = parts.normalize(parts.pad(resized, sides, fill=0), CLIP_MEAN, CLIP_STD)
    found = padded(images, 28, antialias=antialias)
    assert found.shape == (6, 3, 28, 28)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RELEASES)
def test_prompts_longer_than_the_network_reads(name: str, tmp_path: Path, varied_images):
    scores = RELEASES[name](tmp_path)(varied_images(3, seed=1), PROMPTS)
    assert scores.isfinite().all()


def by_hand(name: str, reward: Any, images: Tensor, prompts: list[str]) -> Tensor:
    """The published formula on the tiny network's embeddings of the reference's pixels."""
    clip = load_clip(reward.clip, CPU)
    pixels = padded(images, 28) if "hps" in name else by_torchvision(images, 28)
    texts = [f"A photo depicts {each}" for each in prompts] if name == "clipscore_b32" else prompts
    with torch.no_grad():
        image = clip.model.encode_image(pixels)
        text = clip.model.encode_text(clip.tokenizer(texts))
        cosine = F.cosine_similarity(image, text)
        if name == "aesthetic_v2":
            x = image / image.norm(dim=1, keepdim=True)
            state = torch.load(reward.head, weights_only=True)
            for layer in (0, 2, 4, 6, 7):
                x = x @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
            return x[:, 0]
    if name == "clipscore_b32":
        return 2.5 * cosine.clamp(min=0)
    return clip.scale * cosine if name == "pickscore_v1" else cosine


CLIP_BASED = [name for name in RELEASES if name not in ("blip_vqa", "image_reward_v1")]


@pytest.mark.parametrize("name", CLIP_BASED)
def test_the_published_formula(name: str, tmp_path: Path, varied_images, evidence: Record):
    images = (varied_images(6, seed=3) * 255).round() / 255
    prompts = [f"{prompt} {index}" for index, prompt in enumerate(PROMPTS[:2] * 3)]
    reward = RELEASES[name](tmp_path)
    expected = by_hand(name, reward, images, prompts)
    evidence(
        f"{name} is its published formula",
        float(((reward(images, prompts) - expected).abs() / (1 + expected.abs())).max()),
        2e-6,
        "|score - formula on the tensors of the file| over 1 + |score|, random weights",
    )


@pytest.mark.parametrize("name", RELEASES)
def test_large_batches_are_scored_in_parts(name: str, tmp_path: Path, varied_images):
    reward = RELEASES[name](tmp_path)
    images, prompts = varied_images(40, size=32), [f"picture {index}" for index in range(40)]
    alone = torch.cat([reward(images[i : i + 1], [prompts[i]]) for i in (0, 31, 32, 39)])
    torch.testing.assert_close(
        reward(images, prompts)[[0, 31, 32, 39]], alone, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", RELEASES)
def test_how_far_the_two_paths_are(name: str, tmp_path: Path, varied_images, evidence: Record):
    """What rounding to 8 bits after resizing changes, at the sizes that models make."""
    reward = RELEASES[name](tmp_path)
    images = (varied_images(12, size=512, seed=6) * 255).round() / 255
    prompts = [f"picture {index}" for index in range(12)]
    scores = reward(images, prompts)
    off = (reward.differentiable_score(images, prompts) - scores).abs() / (1 + scores.abs())
    evidence(
        f"{name}: differentiable path against the reference",
        float(off.max()),
        max(reward.path_difference, 1e-5),
        "|difference| over 1 + |score| of 512 x 512 pictures, random weights",
    )


@pytest.fixture
def head(tmp_path: Path) -> Path:
    path = tmp_path / "aesthetic-model.pth"
    torch.save(checkpoints.randomise(AffineHead(), 1).state_dict(), path)
    return path


def test_the_aesthetic_head_s_tensors(head: Path):
    shapes = {name: tuple(v.shape) for name, v in torch.load(head, weights_only=True).items()}
    rows = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    expected: dict[str, tuple[int, ...]] = {
        f"layers.{i}.weight": shape for i, shape in rows.items()
    }
    expected |= {f"layers.{i}.bias": shape[:1] for i, shape in rows.items()}
    assert shapes == expected
    assert sum(math.prod(shape) for shape in shapes.values()) == 927_969


def test_the_aesthetic_head_is_one_affine_map(head: Path, evidence: Record):
    loaded = load_head(head, CPU)
    direction, constant = loaded.folded()
    embeddings = F.normalize(torch.randn(50, 768, generator=torch.Generator().manual_seed(0)))
    evidence(
        "the aesthetic head is affine",
        distance(loaded(embeddings), embeddings @ direction + constant),
        1e-5,
        "five layers and w e + b, random weights",
    )


def test_the_head_has_no_dropout_while_it_scores(head: Path):
    embeddings = torch.randn(4, 768, generator=torch.Generator().manual_seed(0))
    loaded = load_head(head, CPU)
    assert torch.equal(loaded(embeddings), loaded(embeddings))
    assert [m.p for m in loaded.modules() if isinstance(m, torch.nn.Dropout)] == [0.2, 0.2, 0.1]


def test_another_aesthetic_head_is_refused(tmp_path: Path):
    """Such as the one with ReLU, whose layers are numbered otherwise."""
    state = AffineHead().state_dict()
    torch.save(
        {name.replace("layers.2", "layers.3"): v for name, v in state.items()}, tmp_path / "a"
    )
    with pytest.raises(DamagedWeights, match="cannot load the aesthetic head"):
        load_head(tmp_path / "a", CPU)


def test_aesthetic_scores_lie_in_the_range_of_the_head(tmp_path: Path):
    reward = checkpoints.aesthetic(tmp_path)
    direction, constant = load_head(reward.head, CPU).folded()
    low, high = reward.range
    assert low is not None and high is not None
    length = float(np.linalg.norm(direction.numpy()))
    assert (low, high) == pytest.approx((constant - length, constant + length), rel=1e-5)
    assert AestheticV2.range == (-12.760, 23.233)  # of the released head


def test_gradients_in_double_precision(tmp_path: Path):
    """Through resizing, cropping, network and formula, against finite differences."""
    clip = load_clip(checkpoints.clip_in_safetensors(tmp_path, 24, quick=True), CPU)
    network, prepare = clip.model.double(), Cropped(28)
    images = torch.rand(1, 3, 33, 40, generator=torch.Generator().manual_seed(0)).double()

    def cosine(images: Tensor) -> Tensor:
        return network.encode_image(prepare.differentiable(images), normalize=True)[:, :3].sum(1)

    assert torch.autograd.gradcheck(cosine, images.requires_grad_(), fast_mode=True)


def test_versions_name_the_weights(tmp_path: Path):
    def version(reward: Reward) -> str:
        return reward.version

    first = checkpoints.hps_file(tmp_path)
    assert version(HpsV21(first)).endswith(", antialiased)")
    assert version(HpsV21(first, antialias=False)).endswith(", not antialiased)")
    assert version(HpsV21(first)) != version(ClipL14(first))
