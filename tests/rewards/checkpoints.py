"""Tiny random networks in the files and under the names of published releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards import Reward
from rewards.aesthetic_v2 import AestheticV2
from rewards.clip_l14 import ClipL14
from rewards.clipscore_b32 import ClipScoreB32
from rewards.hpsv2_0 import HpsV20
from rewards.hpsv2_1 import HpsV21
from rewards.networks.clip import ClipFile
from rewards.networks.head import AffineHead
from rewards.pickscore_v1 import PickScoreV1
from tests.rewards.blip_checkpoints import image_reward
from tests.rewards.blip_vqa_checkpoints import blip_vqa

VISION = {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}


def randomise(network: Any, seed: int) -> Any:
    """Weights of a size at which every layer matters, whatever the library starts from."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=source)
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            elif parameter.ndim:
                parameter.add_(0.2 * noise)
    return network.eval()


def geometry(folder: Path, width: int, quick: bool) -> str:
    """A configuration as open_clip has them, in a file."""
    path = folder / f"tiny-{width}-{quick}.json"
    folder.mkdir(parents=True, exist_ok=True)
    config = {"embed_dim": width, "vision_cfg": VISION, "text_cfg": TEXT}
    path.write_text(json.dumps(config | ({"quick_gelu": True} if quick else {})))
    return str(path)


def transformers_clip(width: int, quick: bool, seed: int = 0) -> Any:
    """The same network as :func:`geometry` describes, as transformers builds it."""
    from transformers import CLIPConfig, CLIPModel

    common: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": width,
    }
    common["hidden_act"] = "quick_gelu" if quick else "gelu"
    vision = {"hidden_size": 32, "intermediate_size": 128, "image_size": 28, "patch_size": 14}
    text = {"hidden_size": 24, "intermediate_size": 96, "vocab_size": 49408}
    text |= {"bos_token_id": 49406, "eos_token_id": 49407}
    config = CLIPConfig(
        text_config=common | text, vision_config=common | vision, projection_dim=width
    )
    with torch.random.fork_rng(devices=[]):
        network = CLIPModel(config)
    network.logit_scale.data.fill_(4.6052)
    return randomise(network, seed)


def hub_state(network: Any) -> dict[str, Tensor]:
    """As files of older versions of transformers have it, with the counts that are no weights."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return state


def agreeing(network: Any) -> Any:
    """Gives embeddings of pictures and texts a common part, as training does: positive cosines."""
    common = torch.randn(network.projection_dim, generator=torch.Generator().manual_seed(5))
    for norm, projection in (
        (network.vision_model.post_layernorm, network.visual_projection),
        (network.text_model.final_layer_norm, network.text_projection),
    ):
        bias = norm.bias.data.fill_(0.5)
        projection.weight.data += 2 * common[:, None] * bias / bias.square().sum()
    return network


def clip_in_safetensors(folder: Path, width: int, quick: bool) -> ClipFile:
    """OpenAI's ViT-L/14 and PickScore lie on the hub so."""
    described = geometry(folder, width, quick)
    path = folder / "model.safetensors"
    save_file(hub_state(transformers_clip(width, quick)), path)
    return ClipFile(path, described)


def aesthetic(folder: Path) -> AestheticV2:
    path = folder / "aesthetic-model.pth"
    clip = clip_in_safetensors(folder, 768, quick=True)
    torch.save(randomise(AffineHead(), 1).state_dict(), path)
    return AestheticV2(clip, path)


def clipscore(folder: Path) -> ClipScoreB32:
    """In a file of torch, as OpenAI's ViT-B/32 lies on the hub."""
    described = geometry(folder, 24, quick=True)
    path = folder / "pytorch_model.bin"
    torch.save(hub_state(agreeing(transformers_clip(24, quick=True))), path)
    return ClipScoreB32(ClipFile(path, described))


def hps_file(folder: Path) -> ClipFile:
    """Half precision under open_clip's names, beside what is left of training."""
    described = geometry(folder, 24, quick=False)
    config = {key: value for key, value in json.loads(Path(described).read_text()).items()}
    with torch.random.fork_rng(devices=[]):
        network = randomise(open_clip.CLIP(**config), 2)
    state = {name: value.half() for name, value in network.state_dict().items()}
    path = folder / "HPS_compressed.pt"
    torch.save({"epoch": 3, "name": "hps", "state_dict": state}, path)
    return ClipFile(path, described)


RELEASES: dict[str, Callable[[Path], Reward]] = {
    "aesthetic_v2": aesthetic,
    "blip_vqa": blip_vqa,
    "clip_l14": lambda folder: ClipL14(clip_in_safetensors(folder, 24, quick=True)),
    "clipscore_b32": clipscore,
    "hpsv2.0": lambda folder: HpsV20(hps_file(folder)),
    "hpsv2.1": lambda folder: HpsV21(hps_file(folder)),
    "image_reward_v1": image_reward,
    "pickscore_v1": lambda folder: PickScoreV1(clip_in_safetensors(folder, 24, quick=False)),
}
"""Optional reward to how it is made on a tiny network, in a folder of its own."""
