"""CLIP (Radford et al., arXiv 2103.00020) from the files that its descendants were released as.

Two formats hold the same network: that of open_clip (HPSv2, OpenAI's own names) and that of
transformers (OpenAI's hub checkpoints, PickScore). Either becomes an open_clip model of a stated
geometry, strictly: a tensor too many, too few or of another shape is an error.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.scorer import DamagedWeights

# OpenAI's networks have the quick GELU; the name without it would load their files and compute
# something else.
B32, L14, H14 = "ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "ViT-H-14"

_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""In files of older versions of transformers; counts from 0, not weights."""

_WHOLE = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
_TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
_PARTS = (
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.final_layer_norm.", "ln_final."),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),  # spelt so in every such file
    ("vision_model.post_layernorm.", "visual.ln_post."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
)


@dataclass(frozen=True)
class ClipFile:
    """A file of weights, and the network it is of."""

    path: Path
    """``.safetensors``, or a file of torch, bare or under the key ``state_dict``."""
    geometry: str
    """Name of a configuration of open_clip, or path of a JSON file that holds one."""


class Clip:
    """Unit embeddings of prepared pictures and of prompts in one space, fp32, frozen."""

    def __init__(self, model: Any, device: torch.device) -> None:
        from open_clip import SimpleTokenizer

        self.model = model.float().eval().requires_grad_(False).to(device)
        self.device = device
        self.size: int = model.visual.image_size[0]
        self.tokenizer = SimpleTokenizer(context_length=model.context_length)
        self._texts: dict[str, Tensor] = {}

    @property
    def scale(self) -> float:
        """What the network was trained to multiply cosines by."""
        return float(self.model.logit_scale.exp())

    def image_embedding(self, pixels: Tensor) -> Tensor:
        """Unit embeddings ``[n, d]`` of prepared pictures ``[n, 3, size, size]``."""
        return self.model.encode_image(pixels, normalize=True)

    def text_embedding(self, prompts: Sequence[str]) -> Tensor:
        """Unit embeddings ``[n, d]``, each prompt encoded once; longer ones are cut at 77 tokens,
        the end token kept."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            with torch.no_grad():
                tokens = self.tokenizer(new).to(self.device)
                embeddings = self.model.encode_text(tokens, normalize=True)
            self._texts.update(zip(new, embeddings, strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def cosine(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Of each picture and its prompt, ``[n]``."""
        return (self.image_embedding(pixels) * self.text_embedding(prompts)).sum(1)


@functools.cache
def load_clip(file: ClipFile, device: torch.device) -> Clip:
    """The network in a file, loaded once a process; raises :class:`DamagedWeights`."""
    import open_clip

    try:
        state = read_state(file.path)
        if any(name.startswith("vision_model.") for name in state):
            state = from_transformers(state)
        with torch.random.fork_rng(devices=[]):
            model = open_clip.CLIP(**geometry(file.geometry))
        model.load_state_dict(state)
    except Exception as error:  # whatever torch, safetensors or open_clip make of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load a CLIP network from {file.path}: {reason}") from error
    return Clip(model, device)


def geometry(name: str) -> dict[str, Any]:
    """The arguments of ``open_clip.CLIP``."""
    import open_clip

    config = (
        json.loads(Path(name).read_text(encoding="utf-8"))
        if name.endswith(".json")
        else open_clip.get_model_config(name)
    )
    # What a name of open_clip decides beside the sizes.
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    return {key: config[key] for key in keys if key in config}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; of torch's own only tensors are read, never objects."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a transformers ``CLIPModel`` under open_clip's names."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in _BUFFERS or _is_part_of_attention(name):
            continue
        new = _WHOLE.get(name, name)
        for theirs, ours in _PARTS:
            new = new.replace(theirs, ours)
        found[new] = value.T if name in _TRANSPOSED else value
    for name in state:
        if ".self_attn.q_proj." in name:  # queries, keys and values are one matrix in open_clip
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            new = name.replace(".self_attn.q_proj.", ".attn.in_proj_")
            for theirs, ours in _PARTS[:2]:
                new = new.replace(theirs, ours)
            found[new] = torch.cat(parts)
    return found


def _is_part_of_attention(name: str) -> bool:
    return any(f".self_attn.{part}_proj." in name for part in "qkv")
