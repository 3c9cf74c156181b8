"""Networks in whose features diversity and drift are measured.

By default two that share neither training data nor aim: what the emoji scorer calls alike was
learned from captions of emoji, what EfficientNet-Lite0 calls alike from photographs. Others are
optional, since their weights do not come with the program; a missing one says which command
fetches it. One file of this folder an encoder, made known by :func:`register`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rewards.weights import Weights, manifest

MANIFEST = Path(__file__).parent / "weights.toml"
Encoder = Callable[[torch.Tensor], torch.Tensor]
"""Images float ``[n, 3, H, W]`` in [0, 1], or points ``[n, 2]``, to features ``[n, width]``,
without gradient.

Features are as the network gives them, not scaled to unit length: distances between distributions
need their lengths, and what needs directions takes them.
"""


@dataclass(frozen=True)
class Source:
    """Where an encoder comes from."""

    load: Callable[[torch.device], Encoder]
    version: Callable[[], str]
    input: Literal["image", "point"] = "image"
    """What it looks at; it goes together with the models that make it."""


class MissingEncoder(FileNotFoundError):
    """An optional encoder's weights are not here; the message has the command that fetches them."""

    def __str__(self) -> str:
        return str(self.args[0])


_REGISTERED: dict[str, Source] = {}


def register(name: str, source: Source) -> None:
    """Make an encoder known; raises ``ValueError`` if the name is taken."""
    if name in _REGISTERED:
        raise ValueError(f"encoder name {name!r} is taken")
    _REGISTERED[name] = source


def registry() -> dict[str, Source]:
    """All encoders by name, sorted."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTERED.items()))


def load(name: str, device: torch.device) -> Encoder:
    """The encoder of that name; raises ``OSError`` or ``ValueError`` if its weights cannot be
    used."""
    return registry()[name].load(device)


def version(name: str) -> str:
    """Identifies an encoder's weights; raises ``OSError`` or ``ImportError`` if there are none."""
    return registry()[name].version()


def networks() -> dict[str, Weights]:
    """What optional encoders need of the model hub, by the names that ``benchmark fetch`` takes."""
    return manifest(MANIFEST)


def hub_folder(name: str, network: str) -> Path:
    """Folder of one of :func:`networks`, fetched before; nothing is fetched here.

    Raises :class:`MissingEncoder` with what is missing and the command that fetches it.
    """
    from huggingface_hub import snapshot_download

    weights = networks()[network]
    files = [file.name for file in weights.files]
    try:
        folder = Path(
            snapshot_download(weights.repository, local_files_only=True, allow_patterns=files)
        )
        if all((folder / file).is_file() for file in files):
            return folder
    except OSError:
        pass
    raise MissingEncoder(
        f"encoder {name!r} needs weights that are not here: {weights}; "
        f"`python -m benchmark fetch {network}` fetches them"
    )


def resized(images: torch.Tensor, size: int, crop: int) -> torch.Tensor:
    """Images with the shorter side at ``size`` (bicubic), their middle ``[n, 3, crop, crop]``.

    The longer side is rounded down, as torchvision and the releases' preprocessing do.
    """
    height, width = images.shape[-2:]
    shorter = min(height, width)
    target = (size * height // shorter, size * width // shorter)
    images = torch.nn.functional.interpolate(
        images.float(), size=target, mode="bicubic", antialias=True
    ).clamp(0, 1)
    top, left = (target[0] - crop) // 2, (target[1] - crop) // 2
    return images[:, :, top : top + crop, left : left + crop]


def normalised(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """``(images - mean) / std`` by channel."""
    shape = (3, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
