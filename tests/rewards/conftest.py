"""Pictures of many kinds, and a real open_clip checkpoint small enough to build for each run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

STYLES = ("noto", "twemoji", "fluent")
COLOURS = ["white", "black", "red", "yellow", "green", "blue", "purple", "pink"]
WORDS = ["a", "an", "on", "style", "background", "fox", "owl", "cat", "dog", ",", *STYLES, *COLOURS]

TINY_MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 64},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": len(WORDS) + 4,
        "hf_tokenizer_name": "tokenizer of this folder",
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
TINY_PREPROCESSING = {
    "size": 64,
    "mean": [0.5, 0.45, 0.4],
    "std": [0.3, 0.25, 0.2],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words, and an end token with the highest id: that is where open_clip pools."""
    vocabulary = {word: index for index, word in enumerate(["[pad]", "[unk]", *WORDS])}
    vocabulary |= {"[start]": len(vocabulary), "[end]": len(vocabulary) + 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[start] $A [end]",
        special_tokens=[(name, vocabulary[name]) for name in ("[start]", "[end]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[pad]",
        unk_token="[unk]",
        bos_token="[start]",
        eos_token="[end]",
    )


@pytest.fixture(scope="session")
def write_scorer() -> Callable[..., Path]:
    """``write(folder, **preprocessing)``: a random scorer in the format of the real one."""

    def write(folder: Path, **preprocessing: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.CLIP(**TINY_MODEL)
            # The zeros that training starts from would leave all residual branches unused.
            for name, parameter in model.visual.named_parameters():
                if name.endswith("bn3.weight"):
                    torch.nn.init.ones_(parameter)
            model.train()
            model.visual(torch.randn(64, 3, 64, 64))  # running statistics off their defaults
            head = {"weight": 4 * torch.randn(3, 16), "bias": torch.randn(3)}
        config = {
            "model_cfg": TINY_MODEL,
            "preprocess_cfg": TINY_PREPROCESSING | preprocessing,
        }
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        save_file(head, folder / "style_head.safetensors", {"styles": ",".join(STYLES)})
        word_tokenizer().save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_scorer(tmp_path_factory: pytest.TempPathFactory, write_scorer) -> Path:
    """Folder of a random scorer in the format of the real one."""
    return write_scorer(tmp_path_factory.mktemp("scorer") / "tiny")


def _picture(kind: int, size: int, generator: torch.Generator) -> Tensor:
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    first, second = torch.rand(2, 3, 1, 1, generator=generator)
    a, b, c = torch.rand(3, generator=generator).tolist()
    if kind == 0:  # plain
        return first.expand(3, size, size)
    if kind == 1:  # slope
        mask = (x * a + y * b + 1) / 2
    elif kind == 2:  # disc
        mask = ((x - a + 0.5) ** 2 + (y - b + 0.5) ** 2 < c**2).float()
    elif kind == 3:  # checks
        frequency = 6 + 42 * a
        mask = (torch.sin(frequency * x + 6 * b) * torch.sin(frequency * y + 6 * c) > 0).float()
    elif kind == 4:  # smooth patches of random colour
        cells = int(2 ** (1 + 4 * a))
        colours = torch.rand(1, 3, cells, cells, generator=generator)
        return F.interpolate(colours, size=(size, size), mode="bicubic")[0]
    else:  # noise
        return 0.5 + a * (torch.rand(3, size, size, generator=generator) - 0.5)
    return first + (second - first) * mask


@pytest.fixture(scope="session")
def varied_images() -> Callable[..., Tensor]:
    """``draw(n, size=64, seed=0)``: plain, slopes, discs, checks, patches, noise in turn.

    Every other six have noise of a random strength on top.
    """

    def draw(n: int, size: int = 64, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        pictures = []
        for index in range(n):
            picture = _picture(index % 6, size, generator)
            if index // 6 % 2:
                strength = 0.15 * torch.rand(1, generator=generator).square()
                picture = picture + strength * torch.randn(3, size, size, generator=generator)
            pictures.append(picture.clamp(0, 1))
        return torch.stack(pictures)

    return draw
