"""Tiny random LLaVA and DeBERTa in the folders of their releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rewards.vlm_bertscore import QUESTION, VlmBertScore
from tests.rewards.checkpoints import randomise

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SAID = "a an the fox owl cat dog is in on snow red blue white background sits runs two".split()


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    asked = QUESTION.replace(":", " :").replace("?", " ?").split()
    words = ["<pad>", "<unk>", "</s>", "<image>", "USER", "ASSISTANT", *asked, *SAID]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        extra_special_tokens=["<image>"],
    )


def llava(folder: Path, seed: int = 0) -> Path:
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = word_tokenizer()
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    common["intermediate_size"] = 64
    vision = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0}
    text |= {"bos_token_id": 2, "eos_token_id": 2, "max_position_embeddings": 128}
    config = LlavaConfig(
        vision_config=common | vision,
        text_config=common | text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    with torch.random.fork_rng(devices=[]):
        network = LlavaForConditionalGeneration(config)
    randomise(network, seed).save_pretrained(folder)
    size = {"shortest_edge": 28}, {"height": 28, "width": 28}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size[0], crop_size=size[1]),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def deberta(folder: Path) -> Path:
    """Under the names of the release: the classifier of another task on top, in a file of torch."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import DebertaConfig, DebertaForSequenceClassification

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    pieces = [*special, *sorted(ByteLevel.alphabet())]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"do_lower_case": False, "vocab_type": "gpt2"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = DebertaConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=0,
        num_labels=3,
    )
    with torch.random.fork_rng(devices=[]):
        network = randomise(DebertaForSequenceClassification(config), 3)
    config.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder


def vlm_bertscore(folder: Path) -> VlmBertScore:
    return VlmBertScore(llava(folder / "llava"), deberta(folder / "deberta"), layer=2, tokens=6)
