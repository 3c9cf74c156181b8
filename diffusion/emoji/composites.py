"""Emoji on plain backgrounds, and the captions that go with them.

A *composite* is (picture, background, mirrored). Captions name subject, style and background, or
leave some out, so that each can be asked for alone: ``a fox, fluent style, on a blue background``.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.emoji.catalogue import STYLES, Picture, list_pictures, tarball

SIZE = 64
"""Side of a composite in pixels."""
EMOJI_SIZE = 54
"""Side of the emoji within it; the rest is border, which a program can read."""

BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (24, 24, 24),
    "red": (214, 58, 52),
    "yellow": (247, 209, 76),
    "green": (76, 168, 92),
    "blue": (66, 120, 214),
    "purple": (134, 84, 178),
    "pink": (245, 160, 190),
}
"""Background word to its RGB colour, 0-255."""

BACKGROUND_NAMES = list(BACKGROUNDS)
COMPOSITES_PER_PICTURE = 2 * len(BACKGROUNDS)


def article(noun: str) -> str:
    """``a`` or ``an``, by the first letter."""
    return "an" if noun[0] in "aeiou" else "a"


def caption(subject: str, style: str | None = None, background: str | None = None) -> str:
    """Caption in the words the model was trained on."""
    text = f"{article(subject)} {subject}"
    if style:
        text += f", {style} style"
    if background:
        text += f", on {article(background)} {background} background"
    return text


def cut_out(folder: Path, pictures: list[Picture]) -> np.ndarray:
    """RGBA cut-outs of the pictures at their composite size: uint8 ``[n, 54, 54, 4]``."""
    cutouts = np.zeros((len(pictures), EMOJI_SIZE, EMOJI_SIZE, 4), np.uint8)
    for style, (package, _) in STYLES.items():
        wanted = {p.member: index for index, p in enumerate(pictures) if p.style == style}
        with tarfile.open(tarball(folder, package)) as archive:
            for member in archive:  # in file order: seeking in a gzip stream is slow
                if member.name in wanted:
                    content = archive.extractfile(member)
                    assert content is not None
                    cutouts[wanted[member.name]] = _resize(Image.open(io.BytesIO(content.read())))
    return cutouts


def _resize(image: Image.Image) -> np.ndarray:
    # Premultiply before resizing: otherwise the colour of transparent pixels bleeds into edges.
    image = image.convert("RGBA").convert("RGBa")
    return np.asarray(image.resize((EMOJI_SIZE, EMOJI_SIZE), Image.Resampling.LANCZOS))


class Composites:
    """Cut-outs in memory, composited on demand.

    A composite's number is ``picture * 16 + background * 2 + mirrored``. Two of the sixteen of
    each picture are held out of all training, see :meth:`held_out`.
    """

    def __init__(self, pictures: list[Picture], cutouts: np.ndarray):
        self.pictures = pictures
        self.cutouts = torch.from_numpy(cutouts)
        self.colours = torch.tensor([BACKGROUNDS[name] for name in BACKGROUND_NAMES])

    @classmethod
    def load(cls, packages: Path, cache: Path) -> Composites:
        """Read the tarballs in ``packages``, or the arrays an earlier call left in ``cache``."""
        index, arrays = cache / "pictures.json", cache / "cutouts.npy"
        if not (index.exists() and arrays.exists()):
            cache.mkdir(parents=True, exist_ok=True)
            pictures = list_pictures(packages)
            np.save(arrays, cut_out(packages, pictures))
            # Last and whole: a kill before this leaves no index, so everything is read anew.
            part = index.with_suffix(".part")
            part.write_text(json.dumps([asdict(picture) for picture in pictures]))
            part.replace(index)
        pictures = [Picture(**record) for record in json.loads(index.read_text())]
        return cls(pictures, np.load(arrays))

    def __len__(self) -> int:
        return len(self.pictures) * COMPOSITES_PER_PICTURE

    def to(self, device: torch.device) -> Composites:
        """Move the cut-outs; composites are rendered where they are."""
        self.cutouts, self.colours = self.cutouts.to(device), self.colours.to(device)
        return self

    @staticmethod
    def held_out(numbers: torch.Tensor) -> torch.Tensor:
        """Whether composites are held out: two of sixteen a picture, a different pair each."""
        picture, variant = numbers // COMPOSITES_PER_PICTURE, numbers % COMPOSITES_PER_PICTURE
        return (variant + 3 * picture) % 8 == 0

    def render(self, numbers: torch.Tensor) -> torch.Tensor:
        """Composites as float images ``[n, 3, 64, 64]`` in [0, 1]."""
        picture, variant = numbers // COMPOSITES_PER_PICTURE, numbers % COMPOSITES_PER_PICTURE
        cutout = self.cutouts[picture].float()
        mirrored = (variant % 2 == 1)[:, None, None, None]
        cutout = torch.where(mirrored, cutout.flip(2), cutout)
        images = self.colours[variant // 2].float()[:, :, None, None].repeat(1, 1, SIZE, SIZE)
        margin = (SIZE - EMOJI_SIZE) // 2
        inside = images[:, :, margin : margin + EMOJI_SIZE, margin : margin + EMOJI_SIZE]
        colour, alpha = cutout[..., :3].movedim(3, 1), cutout[..., 3:].movedim(3, 1) / 255
        inside.copy_(colour + inside * (1 - alpha))
        return (images / 255).clamp(0, 1)

    def describe(self, number: int) -> tuple[str, str, str]:
        """(subject, style, background) of a composite."""
        picture = self.pictures[number // COMPOSITES_PER_PICTURE]
        background = BACKGROUND_NAMES[number % COMPOSITES_PER_PICTURE // 2]
        return picture.subject, picture.style, background

    def draw(self, n: int, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """``n`` training composites, pictures drawn in proportion to ``weights``.

        Weights, generator and the numbers that come back are on one device.
        """
        picture = torch.multinomial(weights, n, replacement=True, generator=generator)
        # Fourteen of sixteen variants are for training; draw among those directly.
        variants = torch.arange(COMPOSITES_PER_PICTURE, device=weights.device).expand(n, -1)
        numbers = picture[:, None] * COMPOSITES_PER_PICTURE + variants
        allowed = (~self.held_out(numbers)).float()
        variant = torch.multinomial(allowed, 1, generator=generator)[:, 0]
        return picture * COMPOSITES_PER_PICTURE + variant


def draw_mentions(n: int, generator: torch.Generator) -> torch.Tensor:
    """Which of (style, background) each of ``n`` captions mentions: bool ``[n, 2]``.

    Both in half of the captions, one of them in a third, neither in a sixth.
    """
    kind = torch.rand(n, generator=generator, device=generator.device)
    style = (kind < 1 / 2) | ((kind >= 1 / 2) & (kind < 2 / 3))
    background = (kind < 1 / 2) | ((kind >= 2 / 3) & (kind < 5 / 6))
    return torch.stack([style, background], dim=1)
