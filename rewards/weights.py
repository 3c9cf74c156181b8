"""Networks that rewards need and the program does not bring: what they are, and where they lie.

``weights.toml`` names each with its place on the model hub, licence, size and SHA-256. A file is
looked for in the folder that the environment variable ``BENCHMARK_WEIGHTS`` names, as
``<name>/<file>``, then in the hub's cache on this machine, or torch's for what is not on the hub.
Nothing is fetched here: ``python -m benchmark fetch`` does that.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rewards.scorer import DamagedWeights, MissingWeights

MANIFEST = Path(__file__).parent / "weights.toml"
FOLDER_VARIABLE = "BENCHMARK_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """One file of a network."""

    name: str
    bytes: int
    sha256: str = ""
    """That of the release, 64 hexadecimal digits; empty where the release states none."""


@dataclass(frozen=True)
class Weights:
    """A network in files, as it was released."""

    name: str
    title: str
    repository: str
    """Id on the model hub."""
    licence: str
    files: tuple[WeightFile, ...]
    url: str = ""
    """What comes before a file's name where it is not on the hub; it then states its SHA-256."""

    def path(self, file: WeightFile) -> Path | None:
        """Where a file lies on this machine; ``None`` if it does not."""
        if folder := os.environ.get(FOLDER_VARIABLE):
            path = Path(folder) / self.name / file.name
            if path.is_file():
                return path
        if self.url:
            path = self.downloaded(file)
            return path if path.is_file() else None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.repository, file.name)
        return Path(cached) if isinstance(cached, str) else None

    def downloaded(self, file: WeightFile) -> Path:
        """Where a file of an address lies once it is fetched: in torch's cache of checkpoints."""
        import torch

        return Path(torch.hub.get_dir()) / self.name / file.name

    @property
    def here(self) -> bool:
        """Whether every file lies on this machine."""
        return all(self.path(file) for file in self.files)

    @property
    def size(self) -> str:
        """Size of all files together, such as ``1.97 GB``."""
        return in_words(sum(file.bytes for file in self.files))

    def __str__(self) -> str:
        return f"{self.title} ({self.size}, licence {self.licence})"


def in_words(size: int) -> str:
    """Bytes with three digits in decimal units: ``1.97 GB``."""
    for power, unit in ((9, "GB"), (6, "MB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size / 1000:.3g} kB"


@functools.cache
def manifest(path: Path = MANIFEST) -> dict[str, Weights]:
    """All networks of the manifest by name."""
    found = {}
    for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        files = tuple(WeightFile(**file) for file in entry.pop("files"))
        found[name] = Weights(name=name, files=files, **entry)
    return found


def missing(names: Iterable[str], reward: str) -> str:
    """What a reward lacks of the networks named, with the command that fetches it, in one line;
    empty if nothing."""
    lacking = [str(manifest()[name]) for name in names if not manifest()[name].here]
    if not lacking:
        return ""
    return (
        f"needs weights that are not here: {', and '.join(lacking)}; "
        f"`python -m benchmark fetch {reward}` fetches them"
    )


def paths(name: str) -> list[Path]:
    """The files of a network, in the manifest's order, each the released one.

    Raises :class:`MissingWeights`, or :class:`DamagedWeights` for another SHA-256 than stated.
    """
    weights, found = manifest()[name], []
    for file in weights.files:
        path = weights.path(file)
        if path is None:
            raise MissingWeights(f"{weights.title} lacks a file: {file.name} is not here")
        if file.sha256 and sha256(path) != file.sha256:
            raise DamagedWeights(
                f"{path} is not the released file of {weights.title}: its SHA-256 is "
                f"{sha256(path)} and not {file.sha256}; delete it and fetch it again"
            )
        found.append(path)
    return found


def only_path(name: str) -> Path:
    """The file of a network that is one file; raises as :func:`paths` does."""
    (path,) = paths(name)
    return path


def folder(name: str) -> Path:
    """The folder that a network's files lie in together; raises as :func:`paths` does."""
    found = {path.parent for path in paths(name)}
    if len(found) > 1:
        raise MissingWeights(f"{manifest()[name].title} is spread over {len(found)} folders")
    return found.pop()


def tensor_files(folder: Path) -> list[Path]:
    """The files of weights in a folder, sorted."""
    found = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return sorted(found)


@functools.cache
def sha256(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tag(*files: Path) -> str:
    """Which weights gave a score: the first twelve digits of each file's SHA-256, for a reward's
    version."""
    return "weights " + ", ".join(sha256(file)[:12] for file in files)
