"""Which emoji pictures there are, what each is called, and where its file lies.

Four packages of the npm registry are read as tarballs (``npm pack NAME`` writes one):

=============================  ====================================  ============
package                        what it holds                         licence
=============================  ====================================  ============
``emojibase-data``             names, tags and groups                MIT
``emoji-datasource-google``    Noto pictures, 64 x 64 PNG            Apache-2.0
``emoji-datasource-twitter``   Twemoji pictures, 64 x 64 PNG         CC-BY 4.0
``@lobehub/fluent-emoji-3d``   Fluent pictures, 256 x 256 WebP       MIT
=============================  ====================================  ============
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "emojibase-data": "17.0.0",
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
}
"""Package name to the version whose pictures the committed weights were trained on."""

STYLES = {
    "noto": ("emoji-datasource-google", "package/img/google/64/{code}.png"),
    "twemoji": ("emoji-datasource-twitter", "package/img/twitter/64/{code}.png"),
    "fluent": ("@lobehub/fluent-emoji-3d", "package/assets/{code}.webp"),
}
"""Style word of a caption to (package, member path in its tarball)."""

GROUPS = {0: "faces", 3: "animals", 4: "food", 5: "places", 6: "activities", 7: "objects"}
"""emojibase group number to the group's name; people, symbols and flags are left out."""

COMMON_ANIMALS = (
    "cat dog horse monkey rabbit zebra spider bird sheep deer cow goat lion tiger bear raccoon fox "
    "wolf lizard beetle ant butterfly fish shark whale dolphin squirrel mouse rat snake turtle "
    "frog chicken duck goose bee pig turkey fly llama camel bat gorilla hedgehog kangaroo"
).split()
"""The 45 animals that DDPO (arXiv 2305.13301) trains on; prompt list of its release, MIT."""

ALIASES = {
    "ewe": "sheep", "ram": "sheep", "chipmunk": "squirrel", "honeybee": "bee",
    "cat face": "cat", "dog face": "dog", "horse face": "horse", "monkey face": "monkey",
    "rabbit face": "rabbit", "cow face": "cow", "tiger face": "tiger", "mouse face": "mouse",
    "pig face": "pig", "two-hump camel": "camel", "spouting whale": "whale",
    "tropical fish": "fish", "black cat": "cat", "guide dog": "dog", "service dog": "dog",
    "black bird": "bird",
}  # fmt: skip
"""Emoji whose own name is more special than the animal that a prompt asks for."""


@dataclass(frozen=True)
class Picture:
    """One emoji in one style."""

    subject: str
    """What a caption calls it: ``fox``; one of :data:`COMMON_ANIMALS` where an alias says so."""
    label: str
    """Its full emoji name: ``fox``, ``cat face``."""
    group: str
    """One of the values of :data:`GROUPS`."""
    style: str
    """One of the keys of :data:`STYLES`."""
    member: str
    """Path of the file inside the style's tarball."""


def tarball(folder: Path, package: str) -> Path:
    """Path that ``npm pack`` gives a package's pinned version inside ``folder``."""
    stem = package.lstrip("@").replace("/", "-")
    return folder / f"{stem}-{PACKAGES[package]}.tgz"


def missing_packages(folder: Path) -> list[str]:
    """Packages whose tarball ``folder`` lacks."""
    return [package for package in PACKAGES if not tarball(folder, package).exists()]


def fetch_packages(folder: Path) -> None:
    """Download whichever tarballs are missing (about 160 MB) with the npm client.

    Raises ``FileNotFoundError`` without an npm client, ``CalledProcessError`` if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = missing_packages(folder)
    if missing:
        specs = [f"{package}@{PACKAGES[package]}" for package in missing]
        subprocess.run(["npm", "pack", "--silent", *specs], cwd=folder, check=True)


def read_names(folder: Path) -> list[dict]:
    """Records of ``emojibase-data``: label, hexcode, group, tags; components are left out."""
    with tarfile.open(tarball(folder, "emojibase-data")) as archive:
        member = archive.extractfile("package/en/data.json")
        assert member is not None
        records = json.load(member)
    return [record for record in records if record.get("group") in GROUPS]


def list_pictures(folder: Path) -> list[Picture]:
    """Every named emoji that a style has a picture of, in emojibase order, styles innermost."""
    members = {}
    for style, (package, _) in STYLES.items():
        with tarfile.open(tarball(folder, package)) as archive:
            members[style] = set(archive.getnames())
    pictures = []
    for record in read_names(folder):
        label = record["label"].lower()
        for style, (_, pattern) in STYLES.items():
            member = _find_member(members[style], pattern, record["hexcode"].lower())
            if member:
                subject = ALIASES.get(label, label)
                pictures.append(Picture(subject, label, GROUPS[record["group"]], style, member))
    return pictures


def _find_member(members: set[str], pattern: str, code: str) -> str | None:
    # Packages disagree on whether a file name carries the emoji-presentation selector.
    bare = code.replace("-fe0f", "")
    for candidate in (code, bare, f"{bare}-fe0f"):
        if pattern.format(code=candidate) in members:
            return pattern.format(code=candidate)
    return None
