"""The tokenizer that model and scorer share."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
from transformers import CLIPTokenizer

from diffusion.emoji.catalogue import ALIASES, COMMON_ANIMALS, STYLES, Picture
from diffusion.emoji.composites import BACKGROUND_NAMES, Composites, caption
from diffusion.emoji.scorer_training import model_config
from diffusion.emoji.text import (
    CONTEXT_LENGTH,
    VOCABULARY,
    build_tokenizer,
    caption_corpus,
    save_tokenizer,
)

STRANGE = ["", "A  FOX!", "naïve café", "日本 🦊", "fox's", "zzzqqq 1234567 ___", "a fox " * 40]


@pytest.fixture(scope="module")
def tokenizer(composites: Composites) -> CLIPTokenizer:
    return build_tokenizer(caption_corpus(composites.pictures))


def captions() -> list[str]:
    return [
        caption(animal, list(STYLES)[index % 3], BACKGROUND_NAMES[index % 8])
        for index, animal in enumerate(COMMON_ANIMALS)
    ]


def test_every_animal_and_style_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in [*COMMON_ANIMALS, *STYLES, "a", "an", "on", "style", "background", ","]:
        ids = tokenizer(word).input_ids
        assert len(ids) == 3, word
        assert tokenizer.decode(ids[1:2]).strip() == word


def test_start_and_end_have_the_two_highest_ids(tokenizer: CLIPTokenizer) -> None:
    """open_clip pools at the highest id of a text, which must be the end."""
    assert tokenizer.bos_token_id == len(tokenizer) - 2
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert len(tokenizer) <= VOCABULARY
    ids = tokenizer("a fox").input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id


def test_every_caption_fits_the_context(tokenizer: CLIPTokenizer) -> None:
    assert max(len(tokenizer(text).input_ids) for text in captions()) <= CONTEXT_LENGTH
    assert tokenizer.model_max_length == CONTEXT_LENGTH


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_has_tokens_of_its_own(tokenizer: CLIPTokenizer, text: str) -> None:
    """Nothing becomes the unknown token, which in CLIP is the end token."""
    inside = tokenizer(text, truncation=False).input_ids[1:-1]
    assert tokenizer.eos_token_id not in inside and tokenizer.bos_token_id not in inside
    assert tokenizer.decode(inside).replace(" ", "") == text.lower().replace(" ", "")
    cut = tokenizer(text, truncation=True, max_length=CONTEXT_LENGTH).input_ids
    assert len(cut) <= CONTEXT_LENGTH and cut[-1] == tokenizer.eos_token_id


def test_case_does_not_matter(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer("A Fox, Fluent STYLE").input_ids == tokenizer("a fox, fluent style").input_ids


def test_it_is_the_same_every_time() -> None:
    """Merges that are equally frequent are many; their order must not be left to chance."""
    labels = [*ALIASES, *COMMON_ANIMALS]
    corpus = caption_corpus([Picture(label, label, "animals", "noto", "") for label in labels])
    built = {build_tokenizer(corpus).backend_tokenizer.to_str() for _ in range(6)}
    assert len(built) == 1


def test_it_reads_back_from_its_folder(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "all")
    texts = captions() + STRANGE
    expected = tokenizer(texts, truncation=False).input_ids
    loaded = CLIPTokenizer.from_pretrained(tmp_path / "all")
    assert loaded(texts, truncation=False).input_ids == expected
    assert loaded.model_max_length == CONTEXT_LENGTH
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "all" / name).is_file()


def test_open_clip_reads_the_same_tokens(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    config = {"model_cfg": model_config(len(tokenizer)), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(captions())
    ours = tokenizer(
        captions(), padding="max_length", max_length=CONTEXT_LENGTH, return_tensors="pt"
    ).input_ids
    assert theirs.tolist() == ours.tolist()
