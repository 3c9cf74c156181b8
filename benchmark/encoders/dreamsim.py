"""DreamSim (Fu et al., arXiv 2306.09344), its DINO ViT-B/16 variant, optional.

DINO adapted by low-rank matrices so that its cosine distance follows people's judgements of which
of two pictures is more like a third. The ensemble that the release takes by default adds two CLIP
towers (``dreamsim_ensemble.py``); this is the release's single network, a third of its cost.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.encoders import Encoder, MissingEncoder, Source, hub_folder, normalised, register

BACKBONE = "dino"
ADAPTER = "dino_vitb16_single_lora"
ARCHIVE = (
    "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/"
    "dreamsim_dino_vitb16_checkpoint.zip"
)
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model.extractor_list.0.model."
"""Of the adapter's names, by which peft found the network in the release's; the ensemble has more
than number 0."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224


def load(device: torch.device) -> Encoder:
    """The class token after the last block, its mean taken out; raises ``MissingEncoder``."""
    return load_folders(hub_folder("dreamsim", BACKBONE), adapter_folder(), device)


def adapter_folder() -> Path:
    """Where the unpacked adapter is; raises ``MissingEncoder``."""
    parent = Path(torch.hub.get_dir()) / "dreamsim"
    folder = parent / ADAPTER
    files = {path.name for path in folder.glob("adapter_*")}
    if "adapter_config.json" not in files or not files.intersection(ADAPTER_FILES):
        raise MissingEncoder(
            "encoder 'dreamsim' needs weights that are not here; "
            f"`curl -L {ARCHIVE} -o dreamsim.zip && unzip dreamsim.zip -d {parent}` fetches them"
        )
    return folder


def load_folders(backbone: Path, adapter: Path, device: torch.device) -> Encoder:
    """A DINO checkpoint in timm's layout with a LoRA adapter of its ``qkv`` in peft's.

    Raises ``ValueError`` if the two do not go together.
    """
    network = load_dino(backbone, adapter, device)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        token = network.forward_features(normalised(squared(images), MEAN, STD))[:, 0]
        centred: Tensor = token - token.mean(dim=1, keepdim=True)
        return centred

    return encode


def load_dino(backbone: Path, adapter: Path, device: torch.device) -> Any:
    """The network up to its last block, adapted; raises ``ValueError``."""
    import timm
    from safetensors.torch import load_file

    config = json.loads((backbone / "config.json").read_text())
    network: Any
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(
            config["architecture"], num_classes=0, **config.get("model_args", {})
        )
    state = load_file(backbone / "model.safetensors")
    merge(state, adapter, PREFIX)
    network.load_state_dict(state)
    network.norm = torch.nn.Identity()  # the release takes the last block as it is
    return network.float().eval().requires_grad_(False).to(device)


def squared(images: Tensor) -> Tensor:
    """Images at 224 x 224, whatever their sides were, as in the release."""
    return torch.nn.functional.interpolate(
        images.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True
    ).clamp(0, 1)


def merge(state: dict[str, Tensor], adapter: Path, prefix: str) -> None:
    """Add ``lora_alpha / r`` times each pair of low-rank matrices whose name begins so to the
    weight it adapts; raises ``ValueError`` where there is none."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / settings["r"]
    matrices = _matrices(adapter)
    names = [name for name in matrices if ".lora_A." in name and name.startswith(prefix)]
    for name in names:
        target = name.removeprefix(prefix).split(".lora_A.")[0] + ".weight"
        if target not in state:
            raise ValueError(f"{adapter.name}: {name} adapts nothing in the backbone")
        down, up = matrices[name].float(), matrices[name.replace(".lora_A.", ".lora_B.")].float()
        state[target] = state[target].float() + scale * up @ down
    if not names:
        raise ValueError(f"{adapter.name}: there are no low-rank matrices in it")


def _matrices(adapter: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = adapter / ADAPTER_FILES[0]
    if file.is_file():
        return load_file(file)
    found: dict[str, Any] = torch.load(
        adapter / ADAPTER_FILES[1], map_location="cpu", weights_only=True
    )
    return found


def version() -> str:
    """Revision of the backbone and digest of the adapter; raises ``MissingEncoder``."""
    folder = adapter_folder()
    digest = hashlib.sha256()
    for path in sorted(folder.glob("adapter_*")):
        digest.update(path.read_bytes())
    return f"{hub_folder('dreamsim', BACKBONE).name[:12]}-{digest.hexdigest()[:8]}"


register("dreamsim", Source(load, version))
