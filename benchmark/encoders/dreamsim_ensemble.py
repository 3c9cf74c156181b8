"""DreamSim's ensemble (Fu et al., arXiv 2306.09344), what its release takes by default, optional.

The class tokens of DINO ViT-B/16 and the projected embeddings of two CLIP ViT-B/16, OpenAI's and
open_clip's of LAION-400M, side by side, each network adapted by low-rank matrices. "DreamSim
distance" and "DreamSim variance" in papers are of this one, unless they say otherwise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.encoders import (
    Encoder,
    MissingEncoder,
    Source,
    dreamsim,
    hub_folder,
    normalised,
    register,
)

NAME = "dreamsim-ensemble"
ADAPTER = "ensemble_lora"
ARCHIVE = (
    "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/"
    "dreamsim_ensemble_checkpoint.zip"
)
CLIP_FILE, OPEN_CLIP_FILE = "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar"
CLIP_PREFIX, OPEN_CLIP_PREFIX = (dreamsim.PREFIX.replace(".0.", f".{index}.") for index in (1, 2))
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64
"""Of the attention, in all networks of this kind."""


def load(device: torch.device) -> Encoder:
    """Features of all three, their mean taken out; raises ``MissingEncoder``."""
    return load_folders(hub_folder(NAME, dreamsim.BACKBONE), archive_folder(), device)


def archive_folder() -> Path:
    """Where the archive is unpacked; raises ``MissingEncoder``."""
    folder = Path(torch.hub.get_dir()) / NAME
    files = {path.name for path in (folder / ADAPTER).glob("adapter_*")}
    adapter = "adapter_config.json" in files and files.intersection(dreamsim.ADAPTER_FILES)
    if not adapter or not all((folder / each).is_file() for each in (CLIP_FILE, OPEN_CLIP_FILE)):
        raise MissingEncoder(
            f"encoder {NAME!r} needs weights that are not here; "
            f"`curl -L {ARCHIVE} -o dreamsim.zip && unzip dreamsim.zip -d {folder}` fetches them"
        )
    return folder


def load_folders(dino: Path, archive: Path, device: torch.device) -> Encoder:
    """A DINO checkpoint in timm's layout, and the release's unpacked archive.

    Raises ``ValueError`` if files do not go together.
    """
    adapter = archive / ADAPTER
    first = dreamsim.load_dino(dino, adapter, device)
    towers = [
        _tower(archive / CLIP_FILE, adapter, CLIP_PREFIX, True, device),
        _tower(archive / OPEN_CLIP_FILE, adapter, OPEN_CLIP_PREFIX, False, device),
    ]

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        pixels = dreamsim.squared(images)
        parts = [first.forward_features(normalised(pixels, dreamsim.MEAN, dreamsim.STD))[:, 0]]
        for network, projection in towers:
            tokens = network.forward_features(normalised(pixels, CLIP_MEAN, CLIP_STD))
            parts.append(tokens[:, 0] @ projection)
        features = torch.cat(parts, dim=1)
        centred: Tensor = features - features.mean(dim=1, keepdim=True)
        return centred

    return encode


class _QuickGelu(nn.Module):
    """OpenAI's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def _tower(
    file: Path, adapter: Path, prefix: str, quick: bool, device: torch.device
) -> tuple[Any, Tensor]:
    """A CLIP image tower in DINO's names, as the release keeps it, and its projection; raises
    ``ValueError``.

    The names are timm's, but for the norm before the first block.
    """
    from timm.models.vision_transformer import VisionTransformer

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
        state = {name.replace("pos_drop.", "norm_pre."): v.float() for name, v in found.items()}
        projection = state.pop("proj")
        width = state["cls_token"].shape[-1]
        dreamsim.merge(state, adapter, prefix)
        with torch.random.fork_rng(devices=[]):
            network: Any = VisionTransformer(
                img_size=dreamsim.SIZE,
                patch_size=state["patch_embed.proj.weight"].shape[-1],
                embed_dim=width,
                depth=1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks.")),
                num_heads=width // HEAD_WIDTH,
                num_classes=0,
                act_layer=_QuickGelu if quick else nn.GELU,
            )
        network.norm_pre = nn.LayerNorm(width)
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
        network.load_state_dict(state)
    except Exception as error:  # of a damaged file torch.load may raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file.name} is no image tower of DreamSim's release: {reason}"
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    return network, projection.to(device)


def version() -> str:
    """Revision of DINO and digest of the rest; raises ``MissingEncoder``."""
    folder = archive_folder()
    digest = hashlib.sha256()
    for path in (*sorted((folder / ADAPTER).glob("adapter_*")), folder / CLIP_FILE):
        digest.update(path.read_bytes())
    digest.update((folder / OPEN_CLIP_FILE).read_bytes())
    return f"{hub_folder(NAME, dreamsim.BACKBONE).name[:12]}-{digest.hexdigest()[:8]}"


register(NAME, Source(load, version))
