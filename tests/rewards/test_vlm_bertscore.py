"""DDPO's alignment reward through transformers, on tiny networks in the releases' folders."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards import vlm_bertscore
from rewards.networks import minilm
from rewards.networks.bertscore import BertScorer, load_bertscorer
from rewards.networks.vlm import load_vlm
from rewards.scorer import DamagedWeights
from rewards.vlm_bertscore import QUESTION, VlmBertScore, as_jpeg
from tests.how_we_know import Record
from tests.rewards.vlm_checkpoints import deberta, llava
from tests.rewards.vlm_checkpoints import vlm_bertscore as tiny

CPU = torch.device("cpu")


def greedy(candidate: tuple[Tensor, list[int]], reference: tuple[Tensor, list[int]]) -> list[float]:
    """Equations 1 to 3 of the paper, token by token: precision, recall, F1."""
    (said, mine), (asked, theirs) = candidate, reference
    cosine = torch.nn.functional.cosine_similarity(said[:, None], asked[None], dim=-1)
    precision = sum(float(cosine[i].max()) for i in mine) / len(mine)
    recall = sum(float(cosine[:, j].max()) for j in theirs) / len(theirs)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def test_bertscore_is_its_definition(tmp_path: Path, evidence: Record):
    """On the release's classifier, whose own hidden states are taken."""
    from transformers import AutoTokenizer, DebertaForSequenceClassification

    folder = deberta(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = DebertaForSequenceClassification.from_pretrained(folder).eval()

    def states(text: str) -> tuple[Tensor, list[int]]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, [0, -1]].tolist() == [1, 2] and ids.shape[1] == len(text) + 2
        with torch.no_grad():
            hidden = network(ids, output_hidden_states=True).hidden_states[2][0]
        return hidden, list(range(1, len(text) + 1))

    pairs = [("a cat rides", "the image contains a cat"), ("snow", "an owl in the snow")]
    found = load_bertscorer(folder, 2, CPU)(*map(list, zip(*pairs, strict=True)))
    for index, (candidate, reference) in enumerate(pairs):
        expected = greedy(states(candidate), states(reference))
        each = [float(column[index]) for column in (found.precision, found.recall, found.f1)]
        evidence(
            "BERTScore is its definition",
            max(abs(one - other) for one, other in zip(each, expected, strict=True)),
            1e-5,
            "precision, recall, F1 and best cosines, token by token",
        )


@pytest.mark.skipif(bool(minilm.unavailable()), reason="needs the extra conse")
def test_bertscore_of_a_real_network(evidence: Record):
    """Against what the package bert-score 0.3.13 gives with MiniLM's last layer."""
    scorer = load_bertscorer(minilm.folder(), 6, CPU)
    found = scorer(["A cat is riding a bicycle."], ["The image contains a cat riding a bike"])
    columns = (found.precision, found.recall, found.f1)
    for score, expected in zip(columns, (0.830, 0.741, 0.783), strict=True):
        evidence(
            "BERTScore of a sentence by MiniLM",
            abs(float(score) - expected),
            0.001,
            "precision 0.830, recall 0.741, F1 0.783 (bert-score 0.3.13)",
        )


def test_a_text_against_itself_and_against_nothing(tmp_path: Path):
    scorer = load_bertscorer(deberta(tmp_path), 2, CPU)
    found = scorer(["a fox", "", "  "], ["a fox", "a fox", "a fox"])
    assert found.recall.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)
    assert found.precision.tolist() == found.f1.tolist() == pytest.approx([1.0, 0, 0], abs=1e-5)


def test_the_layer_matters_and_has_to_be_there(tmp_path: Path):
    folder = deberta(tmp_path)
    one, other = (load_bertscorer(folder, layer, CPU)(["a"], ["fox"]).recall for layer in (1, 3))
    assert not torch.equal(one, other)
    with pytest.raises(DamagedWeights, match="it has 3 layers, not 40"):
        load_bertscorer(folder, 40, CPU)


def test_answers_are_transformers_greedy_ones(tmp_path: Path, varied_images):
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    folder = llava(tmp_path)
    pictures = as_jpeg(varied_images(6))
    answers = load_vlm(folder, CPU).answers(pictures, QUESTION)
    network = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = LlavaProcessor.from_pretrained(folder)
    prompt = f"USER: <image>\n{QUESTION} ASSISTANT:"
    for picture, answer in zip(pictures, answers, strict=True):
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        tokens = network.generate(**inputs, do_sample=False, max_new_tokens=64)
        said = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == said.strip()
    assert len(set(answers)) > 1 and all(answers)


def test_the_model_is_shown_a_jpeg_of_quality_80(varied_images):
    (picture,) = as_jpeg(varied_images(6)[5:])
    levels = (varied_images(6)[5] * 255).round().byte().movedim(0, -1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=80)
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(buffer)))
    assert not np.array_equal(np.asarray(picture), levels)


def test_the_score_is_the_recall_of_the_prompt_in_the_answer(tmp_path: Path, varied_images):
    reward, images = tiny(tmp_path), (varied_images(2) * 255).round() / 255
    answers = load_vlm(reward.vlm, CPU).answers(as_jpeg(images), QUESTION, 6)
    scorer = load_bertscorer(reward.scorer, 2, CPU)
    expected = scorer(answers, ["The image contains a fox", "The image contains two owls"]).recall
    assert torch.equal(reward(images, ["a fox", "two owls"]), expected)
    assert vlm_bertscore.LAYER == 40


def test_weights_that_are_not_in_the_file_are_an_error(tmp_path: Path):
    folder = deberta(tmp_path)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del state["deberta.encoder.layer.1.output.dense.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(DamagedWeights, match="1 weights are not in its files, first encoder.lay"):
        load_bertscorer(folder, 2, CPU)


def test_a_folder_without_a_model(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    for load in (lambda: load_bertscorer(tmp_path, 2, CPU), lambda: load_vlm(tmp_path, CPU)):
        with pytest.raises(DamagedWeights, match="cannot load a network from") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_networks_are_frozen_in_fp32(tmp_path: Path):
    reward = tiny(tmp_path)
    scorer: BertScorer = load_bertscorer(reward.scorer, 2, CPU)
    for network in (load_vlm(reward.vlm, CPU).network, scorer.network):
        assert not network.training
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in network.parameters())


def test_the_version_names_both_networks(tmp_path: Path):
    reward = tiny(tmp_path)
    other = VlmBertScore(llava(tmp_path / "other", seed=1), reward.scorer, layer=2, tokens=6)
    assert reward.version.endswith(", layer 2, 6 tokens)") and other.version != reward.version
