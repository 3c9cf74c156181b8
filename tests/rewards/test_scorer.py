"""Loading and using the emoji scorer: a tiny random one and the real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

import rewards
from rewards.background import COLOURS
from rewards.clip_score import ClipScore
from rewards.scorer import FOLDER, DamagedWeights, MissingWeights, load_scorer
from rewards.style import HEAD_FILE, Style, load_head
from tests.how_we_know import Record, distance

CPU = torch.device("cpu")
PROMPTS = ["a fox, fluent style, on a blue background", "an owl, noto style"]


@pytest.fixture(params=["tiny", "real"])
def folder(request: pytest.FixtureRequest, tiny_scorer: Path) -> Path:
    return tiny_scorer if request.param == "tiny" else FOLDER


def test_embeddings_are_unit_vectors_in_one_space(folder: Path, varied_images):
    scorer = load_scorer(folder, CPU)
    images, texts = scorer.image_embedding(varied_images(6)), scorer.text_embedding(PROMPTS)
    assert images.shape[1] == texts.shape[1] and images.shape[0] == 6 and texts.shape[0] == 2
    for embeddings in (images, texts):
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


def test_the_network_is_frozen_in_evaluation_mode(folder: Path, varied_images):
    model = load_scorer(folder, CPU).model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = varied_images(2).requires_grad_()
    ClipScore(folder).differentiable_score(images, PROMPTS).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_stored_weights_are_used(folder: Path):
    stored = load_file(folder / "open_clip_model.safetensors")
    used = load_scorer(folder, CPU).model.state_dict()
    assert stored.keys() == used.keys()
    assert all(torch.equal(stored[name].float(), used[name].float()) for name in stored)


def test_it_is_loaded_once(folder: Path):
    assert load_scorer(folder, CPU) is load_scorer(folder, torch.device("cpu"))


def test_loading_leaves_the_global_random_state(write_scorer, tmp_path: Path):
    folder = write_scorer(tmp_path / "fresh")
    before = torch.get_rng_state()
    load_scorer(folder, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_as_open_clip_by_hand(folder: Path, varied_images, evidence: Record):
    """open_clip's own loading, preprocessing of PIL pictures and tokenizer give the same cosine."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    images = varied_images(12)[[2, 10]]
    levels = (images * 255).round().byte().movedim(1, -1).numpy()
    pictures = torch.stack([preprocess(Image.fromarray(picture)) for picture in levels])
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    with torch.no_grad():
        expected = F.cosine_similarity(model.encode_image(pictures), model.encode_text(tokens))
    evidence(
        "clip_score is the cosine that open_clip gives",
        distance(ClipScore(folder)(images, PROMPTS), expected),
        1e-5,
        "clip_score and open_clip's own loading, preprocessing of PIL pictures and tokenizer",
    )


@pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 48), (80, 120), (128, 64)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_other_sizes_are_resized_as_open_clip_does(
    height: int, width: int, resize_mode: str, varied_images, write_scorer, tmp_path: Path
):
    folder = write_scorer(tmp_path / "resized", resize_mode=resize_mode)
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    scorer = load_scorer(folder, CPU)
    image = varied_images(6, size=128)[5:, :, :height, :width]  # noise: aliasing would show
    image = ((0.2 + 0.6 * image) * 255).round() / 255  # so that bicubic overshoot stays inside
    picture = Image.fromarray((image[0] * 255).round().byte().movedim(0, -1).numpy())
    # Pillow rounds to 8 bits after each of its two passes.
    np.testing.assert_allclose(
        scorer.preprocess(image)[0].numpy(), preprocess(picture).numpy(), atol=2.5 / 255 / 0.2
    )


def test_text_pools_at_the_first_end_token(folder: Path):
    scorer = load_scorer(folder, CPU)
    tokens = scorer.tokenizer(PROMPTS)
    assert tokens.shape == (2, scorer.model.context_length)
    # Padding may be the end token too; of equal ids argmax takes the first.
    ends = (tokens == scorer.tokenizer.tokenizer.eos_token_id).int()
    assert (ends.sum(1) >= 1).all() and scorer.model.text_pool_type == "argmax"
    assert torch.equal(tokens.argmax(1), ends.argmax(1))


def test_prompts_are_encoded_once(tiny_scorer: Path, monkeypatch: pytest.MonkeyPatch):
    scorer = load_scorer(tiny_scorer, CPU)
    prompts = ["a dog, on a pink background", "a cat", "a dog, on a pink background"]
    first = scorer.text_embedding(prompts)
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    monkeypatch.setattr(scorer, "tokenizer", None)  # anything new would fail now
    assert torch.equal(scorer.text_embedding(prompts[::-1]), first.flip(0))


def test_embedding_is_differentiable(folder: Path, varied_images):
    images = varied_images(3).requires_grad_()
    load_scorer(folder, CPU).image_embedding(images)[:, 0].sum().backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.any()


def test_gradient_ascent_raises_the_score(folder: Path, varied_images):
    reward = ClipScore(folder)
    images = varied_images(12)[[2, 8]]
    before = reward(images, PROMPTS)
    for _ in range(5):
        images = images.detach().requires_grad_()
        reward.differentiable_score(images, PROMPTS).sum().backward()
        assert images.grad is not None
        images = (images + 0.01 * images.grad.sign()).clamp(0, 1)
    assert (reward(images, PROMPTS) > before).all()


def test_style_probabilities_sum_to_one(folder: Path, varied_images):
    images = varied_images(6)
    styles = load_head(folder, CPU).styles
    assert styles == ("noto", "twemoji", "fluent")
    scores = torch.stack([Style(style, folder)(images, [""] * 6) for style in styles])
    torch.testing.assert_close(scores.sum(0), torch.ones(6))


def test_style_is_the_softmax_of_the_head(folder: Path, varied_images, evidence: Record):
    images = (varied_images(3) * 255).round() / 255
    head = load_file(folder / HEAD_FILE)
    embedding = load_scorer(folder, CPU).image_embedding(images)
    expected = F.linear(embedding, head["weight"].float(), head["bias"].float()).softmax(1)[:, 2]
    evidence(
        "style is the softmax of the stored head",
        distance(Style(folder=folder)(images, [""] * 3), expected),
        1e-6,
        "style and softmax(W e + b) of the scorer's unit embedding e",
    )


def test_unknown_style(tiny_scorer: Path):
    with pytest.raises(
        ValueError, match="unknown style 'noto1'; the nearest is 'noto'; known: noto"
    ):
        Style("noto1", tiny_scorer)


def test_versions_name_the_weights(tiny_scorer: Path, write_scorer, tmp_path: Path):
    other = write_scorer(tmp_path / "other")
    assert ClipScore(other).version == ClipScore(tiny_scorer).version
    third = write_scorer(tmp_path / "third")
    state = load_file(third / "open_clip_model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, third / "open_clip_model.safetensors")
    assert ClipScore(third).version != ClipScore(tiny_scorer).version
    assert Style("noto", third).version != Style("fluent", third).version


@pytest.mark.parametrize(
    "name", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", HEAD_FILE]
)
def test_missing_files_are_named(name: str, write_scorer, tmp_path: Path):
    folder = write_scorer(tmp_path / "incomplete")
    (folder / name).unlink()
    with pytest.raises(MissingWeights) as caught:
        Style(folder=folder)
    assert isinstance(caught.value, FileNotFoundError)
    assert str(folder / name) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folder():
    with pytest.raises(MissingWeights, match="nowhere"):
        ClipScore(Path("nowhere"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("open_clip_config.json", "{}"),
        ("open_clip_config.json", "not JSON"),
        ("open_clip_model.safetensors", "version https://git-lfs.github.com/spec/v1"),
        ("tokenizer.json", "{}"),
    ],
)
def test_damaged_files_are_one_line(
    name: str, content: str, write_scorer, tmp_path: Path, varied_images
):
    folder = write_scorer(tmp_path / "damaged")
    (folder / name).write_text(content)
    with pytest.raises(DamagedWeights, match="cannot load the emoji scorer") as caught:
        ClipScore(folder)(varied_images(1), PROMPTS[:1])
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(write_scorer, tmp_path: Path):
    folder = write_scorer(tmp_path / "other")
    save_file({"weight": torch.zeros(3)}, folder / "open_clip_model.safetensors")
    with pytest.raises(DamagedWeights):
        load_scorer(folder, CPU)


@pytest.mark.parametrize("option", [{"resize_mode": "longest"}, {"interpolation": "bilinear"}])
def test_unsupported_preprocessing_is_refused(option: dict, write_scorer, tmp_path: Path):
    folder = write_scorer(tmp_path / "odd", **option)
    with pytest.raises(DamagedWeights, match="is not supported"):
        load_scorer(folder, CPU)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weight": torch.zeros(2, 16), "bias": torch.zeros(2)}, {"styles": "noto,twemoji,fluent"}),
        ({"weight": torch.zeros(3, 16), "bias": torch.zeros(3)}, None),
        ({"weight": torch.zeros(3, 16)}, {"styles": "noto,twemoji,fluent"}),
    ],
    ids=["too few rows", "no styles", "no bias"],
)
def test_damaged_style_head(tensors: dict, metadata, write_scorer, tmp_path: Path):
    folder = write_scorer(tmp_path / "head")
    save_file(tensors, folder / HEAD_FILE, metadata)
    with pytest.raises(DamagedWeights, match="cannot load the style head"):
        Style(folder=folder)


def test_the_real_scorer_is_what_the_rewards_load():
    assert rewards.load("clip_score").folder == FOLDER  # type: ignore[attr-defined]
    style = rewards.load("style")
    assert isinstance(style, Style) and style.style == "fluent" and style.folder == FOLDER
    assert load_scorer(FOLDER, CPU).size == (64, 64)
    assert json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"] > 0


def test_the_real_scorer_reads_whole_prompts():
    """Nothing of a prompt is cut off or unknown: its tokens decode to it again."""
    tokenizer = load_scorer(FOLDER, CPU).tokenizer
    for colour in COLOURS:
        prompt = f"a raccoon, twemoji style, on a {colour} background"
        decoded = tokenizer.tokenizer.decode(tokenizer([prompt])[0], skip_special_tokens=True)
        assert decoded.replace(" ", "") == prompt.replace(" ", "")


def test_the_real_scorer_sees_the_background():
    """A disc on each plain colour fits the caption that names the colour best, on the whole."""
    axis = torch.linspace(-1, 1, 64)
    disc = (axis[:, None] ** 2 + axis**2 < 0.5).float()
    colours = torch.tensor(list(COLOURS.values())).view(8, 3, 1, 1) / 255
    images = colours * (1 - disc) + torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1) * disc
    scorer = load_scorer(FOLDER, CPU)
    texts = scorer.text_embedding([f"a face, on a {colour} background" for colour in COLOURS])
    cosines = scorer.image_embedding(images) @ texts.T
    assert (cosines.argmax(1) == torch.arange(8)).float().mean() >= 0.5
