"""A handful of drawn emoji in the four packages' real layout, as ``npm pack`` would leave them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from diffusion.emoji.catalogue import STYLES, tarball
from diffusion.emoji.composites import Composites

RECORDS = [
    {"label": "grinning face", "hexcode": "1F600", "group": 0, "tags": ["face", "grin"]},
    {"label": "waving hand", "hexcode": "1F44B", "group": 1, "tags": ["hand"]},
    {"label": "light skin tone", "hexcode": "1F3FB", "group": 2, "tags": ["skin tone"]},
    {"label": "cat face", "hexcode": "1F431", "group": 3, "tags": ["cat"]},
    {"label": "fox", "hexcode": "1F98A", "group": 3, "tags": ["animal", "face"]},
    {"label": "polar bear", "hexcode": "1F43B-200D-2744-FE0F", "group": 3, "tags": ["bear"]},
    {"label": "spider", "hexcode": "1F577", "group": 3, "tags": ["insect"]},
    {"label": "Mrs. Claus", "hexcode": "1F936", "group": 1, "tags": []},
    {"label": "pizza", "hexcode": "1F355", "group": 4, "tags": ["cheese"]},
    {"label": "chequered flag", "hexcode": "1F3C1", "group": 9, "tags": ["racing"]},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
    {"label": "never drawn", "hexcode": "1FFFF", "group": 7, "tags": []},
]

FILES = {
    "noto": ["1f600", "1f44b", "1f431", "1f98a", "1f43b-200d-2744-fe0f", "1f577-fe0f", "1f355"],
    "twemoji": ["1f600", "1f431", "1f98a", "1f43b-200d-2744", "1f577", "1f355", "1f3c1"],
    "fluent": ["1f600", "1f431", "1f98a", "1f43b-200d-2744-fe0f", "1f577", "1f355-fe0f"],
}
"""Stems of each style's pictures: with and without the presentation selector."""

DISC = {"noto": (200, 30, 40), "twemoji": (30, 60, 220), "fluent": (240, 200, 20)}


def draw(style: str, size: int) -> Image.Image:
    """A disc left of the middle; what is transparent is a loud green, which must never show."""
    image = Image.new("RGBA", (size, size), (0, 255, 0, 0))
    box = (size // 8, size // 4, size * 5 // 8, size * 3 // 4)
    ImageDraw.Draw(image).ellipse(box, fill=(*DISC[style], 255))
    return image


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"lossless": True} if kind == "webp" else {}))
    return buffer.getvalue()


def write_packages(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tarball(folder, "emojibase-data"), "w:gz") as archive:
        add(archive, "package/package.json", b"{}")
        add(archive, "package/en/data.json", json.dumps(RECORDS).encode())
    for style, (package, pattern) in STYLES.items():
        kind = pattern.rpartition(".")[2]
        with tarfile.open(tarball(folder, package), "w:gz") as archive:
            add(archive, "package/README.md", b"pictures")
            for code in FILES[style]:
                size = 256 if kind == "webp" else 64
                picture = encoded(draw(style, size), kind)
                add(archive, pattern.format(code=code), picture)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    write_packages(folder)
    return folder


@pytest.fixture(scope="session")
def composites(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Composites:
    return Composites.load(packages, tmp_path_factory.mktemp("cache"))
