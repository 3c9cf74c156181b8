"""EfficientNet-Lite0 holds the weights of the package, in their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion.lite0 import FEATURES, Lite0, weights_path
from diffusion.randomness import generator

MILITARY_UNIFORM = 652


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return Lite0().requires_grad_(False)


def test_features_and_maps(lite0: Lite0) -> None:
    images = torch.rand(2, 3, 64, 64, generator=generator(0, "images")) * 2 - 1
    assert lite0(images).shape == (2, FEATURES)
    assert [tuple(maps.shape[1:]) for maps in lite0.stages(images)] == [
        (32, 32, 32),
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
    ]


def test_weights_lie_where_their_names_say(lite0: Lite0) -> None:
    """Tensors are matched by order; names of the file must agree in kind with those of timm."""
    state = torch.load(weights_path(), map_location="cpu", weights_only=True)
    own = lite0.net.state_dict()
    for theirs, (name, value) in zip(state, own.items(), strict=True):
        assert theirs.rpartition(".")[2] == name.rpartition(".")[2]
        assert torch.equal(state[theirs], value)


def test_it_recognises_a_photograph(lite0: Lite0) -> None:
    """Grace Hopper in the sample data of matplotlib wears ImageNet's class 652."""
    path = Path(pytest.importorskip("matplotlib").get_data_path()) / "sample_data"
    with Image.open(path / "grace_hopper.jpg") as photograph:
        square = photograph.convert("RGB").crop((0, 0, 512, 512)).resize((224, 224))
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    images = pixels.reshape(1, 224, 224, 3).movedim(3, 1) / 127.5 - 1
    assert lite0.net(images).argmax().item() == MILITARY_UNIFORM
    features = lite0(images, size=224)
    assert lite0.net.classifier(features).argmax().item() == MILITARY_UNIFORM


def test_images_pass_a_gradient(lite0: Lite0) -> None:
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    lite0(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all() and images.grad.abs().max() > 0
