"""Names matched with pictures of three packages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from diffusion.emoji.catalogue import (
    ALIASES,
    COMMON_ANIMALS,
    PACKAGES,
    STYLES,
    fetch_packages,
    list_pictures,
    missing_packages,
    read_names,
    tarball,
)


def test_people_components_flags_and_the_ungrouped_are_left_out(packages: Path) -> None:
    assert [record["label"] for record in read_names(packages)] == [
        "grinning face", "cat face", "fox", "polar bear", "spider", "pizza", "never drawn",
    ]  # fmt: skip


def test_every_picture_of_a_name_is_found(packages: Path) -> None:
    pictures = list_pictures(packages)
    labels = ["grinning face", "cat face", "fox", "polar bear", "spider", "pizza"]
    assert [(p.label, p.style) for p in pictures] == [(x, s) for x in labels for s in STYLES]
    assert [p.group for p in pictures[::3]] == ["faces", *["animals"] * 4, "food"]
    subjects = {p.label: p.subject for p in pictures}
    assert subjects["cat face"] == "cat" and subjects["fox"] == "fox"


def test_the_presentation_selector_is_tried_both_ways(packages: Path) -> None:
    members = {(p.label, p.style): p.member for p in list_pictures(packages)}
    assert {key: value for key, value in members.items() if key[0] in ("spider", "polar bear")} == {
        ("spider", "noto"): "package/img/google/64/1f577-fe0f.png",
        ("spider", "twemoji"): "package/img/twitter/64/1f577.png",
        ("spider", "fluent"): "package/assets/1f577.webp",
        ("polar bear", "noto"): "package/img/google/64/1f43b-200d-2744-fe0f.png",
        ("polar bear", "twemoji"): "package/img/twitter/64/1f43b-200d-2744.png",
        ("polar bear", "fluent"): "package/assets/1f43b-200d-2744-fe0f.webp",
    }


def test_the_45_animals() -> None:
    assert len(COMMON_ANIMALS) == len(set(COMMON_ANIMALS)) == 45
    assert set(ALIASES.values()) <= set(COMMON_ANIMALS)


def test_tarballs_are_named_as_npm_names_them(tmp_path: Path) -> None:
    assert tarball(tmp_path, "@lobehub/fluent-emoji-3d") == (
        tmp_path / "lobehub-fluent-emoji-3d-1.1.0.tgz"
    )


def test_only_missing_packages_are_fetched(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell script stands for npm: it writes down what it was asked for."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text('#!/bin/sh\necho "$@" >> asked\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    fetch_packages(packages)
    assert not (packages / "asked").exists()

    folder = tmp_path / "new" / "packages"
    fetch_packages(folder)
    asked = (folder / "asked").read_text().split()
    assert asked == ["pack", "--silent", *(f"{name}@{PACKAGES[name]}" for name in PACKAGES)]

    tarball(folder, "emojibase-data").touch()
    assert missing_packages(folder) == list(PACKAGES)[1:]
    npm.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError):
        fetch_packages(folder)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(FileNotFoundError):
        fetch_packages(folder)
