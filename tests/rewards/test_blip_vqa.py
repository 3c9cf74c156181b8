"""BLIP VQA on a tiny checkpoint under the release's names, against transformers' own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards.blip_vqa import BlipVqa
from rewards.networks.blip_vqa import BlipVqaModel, asked, load_blip_vqa
from rewards.networks.preprocessing import CLIP_MEAN, CLIP_STD, Squashed
from rewards.scorer import DamagedWeights
from tests.how_we_know import Record, distance
from tests.rewards.blip_checkpoints import wordpieces
from tests.rewards.blip_vqa_checkpoints import blip_vqa, blip_vqa_state, write
from tests.rewards.test_published import as_files

CPU = torch.device("cpu")
PROMPTS = ["a fox", "An owl, in the snow.", "two cats " * 30]


def load(reward: BlipVqa) -> BlipVqaModel:
    return load_blip_vqa(reward.folder, reward.vocabulary, CPU)


def by_torchvision(images: Tensor, size: int) -> Tensor:
    """The pipeline of BLIP's release, of pictures as files have them."""
    from torchvision import transforms

    pipeline = transforms.Compose(
        [
            transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    return torch.stack([pipeline(picture) for picture in as_files(images)])


def log_likelihood(network: Any, pixels: Tensor, question: list[int], answer: int) -> float:
    """Of a word as the first of an answer, by the loss that the network is trained with."""
    with torch.no_grad():
        told = network(
            input_ids=torch.tensor([question]),
            pixel_values=pixels,
            attention_mask=torch.ones(1, len(question), dtype=torch.long),
            labels=torch.tensor([[30522, answer]]),
        )
    return -float(told.loss)


def test_it_is_yes_against_no_by_transformers_own_loss(
    tmp_path: Path, varied_images, evidence: Record
):
    from transformers import BlipForQuestionAnswering

    reward = blip_vqa(tmp_path)
    network = BlipForQuestionAnswering.from_pretrained(reward.folder).eval()
    images = (varied_images(4, seed=3)[:, :, :50] * 255).round() / 255
    pixels = by_torchvision(images, 32)
    question = [30523, 1037, 1042, 2014, 2023, 1029, 102]
    chances = []
    for each in pixels:
        yes, no = (log_likelihood(network, each[None], question, word) for word in (2748, 2053))
        chances.append(torch.tensor([yes, no]).softmax(0)[0])
    assert len({round(float(each), 3) for each in chances}) == 4
    evidence(
        "blip_vqa is p(yes) / (p(yes) + p(no)) by transformers' own loss",
        distance(reward(images, ["A fox"] * 4), torch.stack(chances)),
        1e-5,
        "exp of minus the loss of the answers yes and no, random weights",
    )


def test_prompt_and_picture_both_matter(tmp_path: Path, varied_images):
    reward, images = blip_vqa(tmp_path), varied_images(3, seed=3)
    scores = reward(images, PROMPTS)
    assert (scores - reward(images.flip(0), PROMPTS)).abs()[[0, 2]].min() > 1e-3
    assert (scores - reward(images, PROMPTS[::-1])).abs()[[0, 2]].min() > 1e-3


def test_questions(tmp_path: Path):
    assert asked('A "fox" (two), #1; *: in the snow~!') == "a fox two, 1  in the snow?"
    model = load(blip_vqa(tmp_path))
    assert model.question("A b.") == [30523, 1037, 1038, 1029, 102]
    long = model.question("two cats " * 30)
    assert len(long) == 35 and (long[0], long[-1]) == (30523, 102)


def test_a_score_does_not_depend_on_the_longest_question(tmp_path: Path, varied_images):
    reward, images = blip_vqa(tmp_path), varied_images(3, seed=3)
    alone = [reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(reward(images, PROMPTS), torch.cat(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (333, 500), (64, 48)])
def test_pictures_are_squashed(height: int, width: int, varied_images, evidence: Record):
    images = varied_images(6, size=512, seed=2)[:, :, :height, :width]
    found = Squashed(384).reference((images * 255).round() / 255)
    evidence(
        "BLIP's reference preprocessing is torchvision's of PIL pictures",
        distance(found, by_torchvision(images, 384)),
        1e-6,
        "resized and normalised pixels, three sizes",
    )


@pytest.mark.parametrize("bias", ["bias", "decoder.bias"])
def test_weights_come_back_as_they_were_written(bias: str, tmp_path: Path):
    """Whichever of the two names of the head's bias its file has."""
    state, root = blip_vqa_state(), "text_decoder.cls.predictions"
    state[f"{root}.{bias}"] = state.pop(f"{root}.bias")
    used = load(BlipVqa(write(tmp_path, state), wordpieces(tmp_path))).network.state_dict()
    weights = {name for name in state if not name.endswith("position_ids")}
    assert used.keys() == weights | {f"{root}.bias", f"{root}.decoder.bias"}
    assert all(torch.equal(used[name], state[name]) for name in weights)
    assert torch.equal(used[f"{root}.bias"], used[f"{root}.decoder.bias"])


def _without(state: dict[str, Tensor]) -> None:
    del state["text_decoder.bert.encoder.layer.1.crossattention.self.query.weight"]


def _with(state: dict[str, Tensor]) -> None:
    state["text_decoder.extra"] = torch.zeros(1)


def _reshaped(state: dict[str, Tensor]) -> None:
    state["vision_model.post_layernorm.bias"] = torch.zeros(31)


@pytest.mark.parametrize("spoil", [_without, _with, _reshaped])
def test_another_network_is_refused(spoil: Callable[..., None], tmp_path: Path):
    state = blip_vqa_state()
    spoil(state)
    with pytest.raises(DamagedWeights, match="cannot load BLIP VQA from") as caught:
        load(BlipVqa(write(tmp_path, state), wordpieces(tmp_path)))
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_refused(tmp_path: Path):
    reward = blip_vqa(tmp_path)
    words = reward.vocabulary.read_text()
    for other, problem in (
        ("[UNK]\n[SEP]\n[CLS]\n[PAD]\n[MASK]\nyes\nno\n", "it knows 30524 words, not 7"),
        (words.replace("\nno\n", "\nnot\n"), "has no words yes and no"),
    ):
        vocabulary = tmp_path / f"{len(other)}.txt"
        vocabulary.write_text(other)
        with pytest.raises(DamagedWeights, match=problem) as caught:
            load(BlipVqa(reward.folder, vocabulary))
        assert "\n" not in str(caught.value)


def test_networks_are_frozen_in_fp32(tmp_path: Path):
    network = load(blip_vqa(tmp_path)).network
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_gradient_in_double_precision(tmp_path: Path):
    """Through squashing, the three parts and the probability, against finite differences."""
    model = load(blip_vqa(tmp_path))
    model.network.double()
    images = torch.rand(1, 3, 33, 40, generator=torch.Generator().manual_seed(0)).double()

    def chance(images: Tensor) -> Tensor:
        return model.yes_or_no(Squashed(32).differentiable(images), ["a fox"])

    assert torch.autograd.gradcheck(chance, images.requires_grad_(), fast_mode=True)


def test_the_version_names_the_weights(tmp_path: Path):
    reward, state = blip_vqa(tmp_path), blip_vqa_state()
    state["vision_model.post_layernorm.bias"] += 1
    other = BlipVqa(write(tmp_path / "other", state), reward.vocabulary)
    assert reward.version.startswith("1 (weights ") and other.version != reward.version


def test_a_picture_is_not_cropped(tmp_path: Path):
    """What lies at the far left of a wide picture is seen."""
    reward = blip_vqa(tmp_path)
    left, right = Image.new("RGB", (96, 32)), Image.new("RGB", (96, 32))
    left.paste((255, 0, 0), (0, 0, 16, 32))
    right.paste((255, 0, 0), (80, 0, 96, 32))
    from torchvision.transforms.functional import to_tensor

    scores = reward(torch.stack([to_tensor(left), to_tensor(right)]), ["a fox"] * 2)
    assert (scores[0] - scores[1]).abs() > 1e-4
