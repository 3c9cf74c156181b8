"""BLIP VQA as a judge of alignment: is that what the picture shows, yes or no?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rewards import register, weights
from rewards.interface import Reward
from rewards.networks.blip_vqa import load_blip_vqa
from rewards.networks.preprocessing import Squashed, in_batches


@register
class BlipVqa(Reward):
    """Probability of the answer yes against no to the question "PROMPT?".

    With p(w) the probability that the answer's first word is w, a softmax over all words,

        score = p(yes) / (p(yes) + p(no)) = sigmoid(logit(yes) - logit(no))

    Question and probability are those of T2I-CompBench's BLIP-VQA: in lower case, without
    ``.!"()*#:;~``, at most 35 tokens, [ENC] first. That benchmark asks once for each noun phrase
    and multiplies; here one question is of the whole prompt, as VQAScore asks it, so that numbers
    are not the benchmark's. Pictures are squashed to the checkpoint's 384 x 384, where the
    benchmark has 480. ``folder`` and ``vocabulary`` are in place of the released ones. Raises
    :class:`rewards.scorer.MissingWeights` and :class:`rewards.scorer.DamagedWeights`.
    """

    name = "blip_vqa"
    version = "1"
    unit = "probability"
    range = (0.0, 1.0)
    differentiable = True
    source = (
        "Li et al., BLIP, arXiv 2201.12086; Huang et al., T2I-CompBench, arXiv 2307.06350; "
        "Lin et al., VQAScore, arXiv 2404.01291"
    )
    needs_prompt = True
    weights = ("blip-vqa", "bert-vocabulary")
    path_difference = 0.02

    def __init__(self, folder: Path | None = None, vocabulary: Path | None = None) -> None:
        self.folder = folder or weights.folder("blip-vqa")
        self.vocabulary = vocabulary or weights.only_path("bert-vocabulary")
        files = [*weights.tensor_files(self.folder), self.vocabulary]
        self.version = f"1 ({weights.tag(*files)})"

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_blip_vqa(self.folder, self.vocabulary, images.device)
        return model.yes_or_no(Squashed(model.size).differentiable(images), prompts)

    def reference_score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        model = load_blip_vqa(self.folder, self.vocabulary, images.device)
        prepare = Squashed(model.size).reference
        return in_batches(lambda x, of: model.yes_or_no(prepare(x), of), images, prompts)
