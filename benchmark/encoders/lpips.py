"""LPIPS (Zhang et al., arXiv 1801.03924), AlexNet, version 0.1, optional.

LPIPS is a squared distance of features: the activations of five layers, of unit length at each
position, each channel weighted as people's judgements of similarity ask for, and averaged over
positions. These features are what is encoded here, so that

    LPIPS(a, b) = |lpips(a) - lpips(b)|²

which the metric ``squared_distance`` averages over the pairs of a prompt. Pictures are brought to
64 x 64 first: at 512 x 512 they would be two million numbers each.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.encoders import Encoder, MissingEncoder, Source, register, resized
from rewards import scorer

SIZE = 64
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pixels in [-1, 1]."""
LAYERS = (1, 4, 7, 9, 11)
"""Of AlexNet's convolutional part: the five rectified convolutions."""
TRUNK_FILE = "alexnet-owt-7be5be79.pth"
WEIGHTS_FILE = "functional/image/lpips_models/alex.pth"
"""In the package torchmetrics."""


def load(device: torch.device) -> Encoder:
    """Weighted activations, 31,872 wide; raises ``MissingEncoder``."""
    return load_files(trunk_file(), weights_file(), device)


def trunk_file() -> Path:
    """AlexNet's ImageNet weights, where torchvision keeps them; raises ``MissingEncoder``."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILE
    if not path.is_file():
        raise MissingEncoder(
            "encoder 'lpips' needs weights that are not here; "
            "`python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\"` "
            "fetches them"
        )
    return path


def weights_file() -> Path:
    """Weights of the channels, which come with torchmetrics; raises ``MissingEncoder``."""
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise MissingEncoder(
            "encoder 'lpips' needs the package torchmetrics; "
            "`pip install -e '.[lpips]'` installs it"
        )
    path = Path(package.origin).parent / WEIGHTS_FILE
    if not path.is_file():
        raise MissingEncoder(
            f"encoder 'lpips' needs torchmetrics with the file {WEIGHTS_FILE}; "
            "`pip install 'torchmetrics>=1.9'` installs it"
        )
    return path


def load_files(trunk: Path, weights: Path, device: torch.device) -> Encoder:
    """LPIPS of an AlexNet checkpoint as torchvision's, and one weight a channel of each layer.

    Raises ``ValueError`` if the files are not these.
    """
    layers = _layers(trunk).to(device)
    shift, scale = (torch.tensor(each, device=device).view(3, 1, 1) for each in (SHIFT, SCALE))
    roots = [weight.to(device) for weight in _roots(weights)]

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        hidden = (resized(images, SIZE, SIZE) * 2 - 1 - shift) / scale
        features = []
        for index, layer in enumerate(layers):
            hidden = layer(hidden)
            if index in LAYERS:
                unit = nn.functional.normalize(hidden, dim=1, eps=1e-10)
                root = roots[LAYERS.index(index)] / hidden[0, 0].numel() ** 0.5
                features.append((unit * root).flatten(1))
        return torch.cat(features, dim=1)

    return encode


def _layers(trunk: Path) -> nn.Sequential:
    """AlexNet's convolutional part."""
    from torchvision.models import alexnet

    state = torch.load(trunk, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        layers: nn.Sequential = alexnet().features
    kept = {name[9:]: value for name, value in state.items() if name.startswith("features.")}
    try:
        layers.load_state_dict(kept, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{trunk.name} holds no AlexNet: {error}") from error
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers.float().eval().requires_grad_(False)


def _roots(weights: Path) -> list[Tensor]:
    """Square roots ``[channels, 1, 1]`` of each layer's weights."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    found = [state.get(f"lin{layer}.model.1.weight") for layer in range(len(LAYERS))]
    if any(weight is None or (weight < 0).any() for weight in found):
        raise ValueError(
            f"{weights.name} does not hold LPIPS's weights, one of them 0 or more each"
        )
    return [weight.float()[0].sqrt() for weight in found]


def version() -> str:
    """Digest of both files; raises ``MissingEncoder``."""
    weights, trunk = weights_file(), trunk_file()
    return f"{scorer.digest(trunk)[:8]}-{scorer.digest(weights)[:8]}"


register("lpips", Source(load, version))
