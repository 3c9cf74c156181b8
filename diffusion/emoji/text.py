"""The tokenizer that the emoji model and the emoji scorer share.

CLIP's own kind (lower-cased byte-level BPE with ``</w>``), its merges learnt from the captions, so
that nearly every word of a caption is one token.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from diffusion.emoji.catalogue import COMMON_ANIMALS, STYLES, Picture
from diffusion.emoji.composites import BACKGROUND_NAMES, caption

CONTEXT_LENGTH = 24
"""Tokens a prompt, start and end included; longer prompts are cut."""
VOCABULARY = 4096

_WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def caption_corpus(pictures: list[Picture]) -> list[str]:
    """One caption a picture and one a common animal, backgrounds in turn."""
    texts = []
    for index, picture in enumerate(pictures):
        background = BACKGROUND_NAMES[index % len(BACKGROUND_NAMES)]
        texts += [picture.label, caption(picture.subject, picture.style, background)]
    for index, animal in enumerate(COMMON_ANIMALS):
        texts += [caption(animal, list(STYLES)[index % len(STYLES)])] * 4
    return texts


def build_tokenizer(corpus: list[str]) -> CLIPTokenizer:
    """Learn the merges and wrap them; start and end tokens get the two highest ids."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Bytes never seen in the corpus still need a token, alone and at the end of a word.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [letter + "</w>" for letter in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        # As special tokens they get their ids first. Otherwise the endings are numbered in the
        # order of a hash map, which settles equally frequent merges otherwise in each process.
        special_tokens=alphabet + endings,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    state = learner.model.__getstate__()  # bytes of the model's JSON: vocabulary and merges
    return _wrap(state, alphabet + endings)


def _wrap(state: bytes, required: list[str]) -> CLIPTokenizer:
    import json

    model = json.loads(state)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokens = list(required)
    tokens += [token for token in model["vocab"] if token not in set(required)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json``, ``vocab.json`` and ``merges.txt``."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
