"""Stable Diffusion's architectures at their true size, without their weights."""

from __future__ import annotations

import open_clip
import pytest

from benchmark import models
from diffusion.architectures import RANDOM, clip_tokenizer, networks

PARAMETERS = {
    "sd15-random": {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
    },
    "sdxl-random": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""Of the published weights."""


@pytest.mark.parametrize("name", RANDOM)
def test_parameters_are_as_many_as_published(name: str) -> None:
    found = networks(name, "meta")
    counts = {part: sum(p.numel() for p in net.parameters()) for part, net in found.items()}
    assert counts == PARAMETERS[name]
    assert sum(counts.values()) == models.RANDOM[name]


def test_the_tokenizer_is_clips() -> None:
    prompts = ["a cat", "An F1 race car, 35mm; naïve café", "hippopotamus's  photo!"]
    tokenizer = clip_tokenizer("<|endoftext|>")
    assert len(tokenizer) == 49408
    ours = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    theirs = open_clip.SimpleTokenizer()(prompts)
    for row, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        end = row.index(49407) + 1
        assert row[:end] == other[:end]
        assert set(row[end:]) <= {49407}
    padded = clip_tokenizer("!")(["a cat"], padding="max_length").input_ids[0]
    assert padded[4:] == [0] * 73
