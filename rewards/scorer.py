"""The emoji scorer: an image-text dual encoder in open_clip's own format.

Its folder holds ``open_clip_config.json``, ``open_clip_model.safetensors``, the Hugging Face
tokenizer files and ``style_head.safetensors``; open_clip loads it by ``local-dir:<folder>``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent / "emoji_scorer"
MODEL_FILES = (
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


class MissingWeights(FileNotFoundError):
    """A file of the scorer is not there; the message names its path."""


class DamagedWeights(ValueError):
    """A file of the scorer is there and cannot be used; the message says why."""


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Raise :class:`MissingWeights` for the first of the files that ``folder`` lacks."""
    for name in names:
        if not (folder / name).is_file():
            raise MissingWeights(f"the emoji scorer lacks a file: {folder / name}")


@functools.cache
def digest(path: Path) -> str:
    """First twelve hexadecimal digits of a file's SHA-256: which weights gave a score."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@functools.cache
def load_scorer(folder: Path, device: torch.device) -> Scorer:
    """The scorer in ``folder`` on ``device``, loaded once a process.

    Raises :class:`MissingWeights` or :class:`DamagedWeights`.
    """
    require_files(folder, MODEL_FILES)
    # Imported here because it takes seconds and most rewards do without.
    import open_clip

    name = f"local-dir:{folder}"
    try:
        # Building a network draws random weights before the stored ones replace them.
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model_from_pretrained(
                name, precision="fp32", return_transform=False
            )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # whatever open_clip, safetensors or tokenizers make of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"cannot load the emoji scorer in {folder}: {reason}") from error
    return Scorer(model.to(device), tokenizer)


class Scorer:
    """Unit embeddings of images and prompts in one space, fp32.

    ``model`` is an open_clip CLIP with its ``visual.preprocess_cfg``; it is frozen and put in
    evaluation mode. ``tokenizer`` maps a list of strings to token ids ``[n, context_length]``.
    """

    def __init__(self, model: Any, tokenizer: Any):
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        config = model.visual.preprocess_cfg
        if config["resize_mode"] not in ("shortest", "squash"):
            raise DamagedWeights(f"resize_mode {config['resize_mode']!r} is not supported")
        if config["interpolation"] != "bicubic":
            raise DamagedWeights(f"interpolation {config['interpolation']!r} is not supported")
        size = config["size"]
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.squash: bool = config["resize_mode"] == "squash"
        self.device: torch.device = model.logit_scale.device
        self.mean = torch.tensor(config["mean"], device=self.device).view(3, 1, 1)
        self.std = torch.tensor(config["std"], device=self.device).view(3, 1, 1)
        self._texts: dict[str, Tensor] = {}

    def image_embedding(self, images: Tensor) -> Tensor:
        """Unit embeddings ``[n, d]`` of images ``[n, 3, H, W]`` in [0, 1], differentiable."""
        return self.model.encode_image(self.preprocess(images.float()), normalize=True)

    def image_features(self, images: Tensor) -> Tensor:
        """What :meth:`image_embedding` scales to unit length, ``[n, d]``."""
        return self.model.encode_image(self.preprocess(images.float()))

    def preprocess(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, H, W]`` in [0, 1] at the network's size, normalised."""
        return (self._resized(images) - self.mean) / self.std

    def text_embedding(self, prompts: Sequence[str]) -> Tensor:
        """Unit embeddings ``[n, d]`` of prompts, without gradient; each prompt is encoded once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            with torch.no_grad():
                tokens = self.tokenizer(new).to(self.device)
                embeddings = self.model.encode_text(tokens, normalize=True)
            self._texts.update(zip(new, embeddings, strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) == self.size:
            return images
        if self.squash:
            target = self.size
        else:
            # The picture covers the input and what stands out is cut off, evenly on both sides.
            scale = max(self.size[0] / height, self.size[1] / width)
            target = (round(height * scale), round(width * scale))
        images = F.interpolate(images, size=target, mode="bicubic", antialias=True)
        top, left = (target[0] - self.size[0]) // 2, (target[1] - self.size[1]) // 2
        return images[:, :, top : top + self.size[0], left : left + self.size[1]]
