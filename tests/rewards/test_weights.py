"""Where weights are looked for, and how a missing or another file is told."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import rewards
from benchmark import detectors
from rewards import weights
from rewards.scorer import DamagedWeights, MissingWeights
from rewards.weights import WeightFile, Weights, in_words, manifest

OPTIONAL = [name for name, kind in rewards.registry().items() if kind.weights]
CONTENT = b"not a network, and so not for sale"


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the hub's cache nor in a folder, whatever the machine has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A network of one file, and the folder named that it would be in."""
    file = WeightFile("a.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    entry = Weights("tiny", "A tiny one", "owner/tiny", "MIT", (file,))
    monkeypatch.setitem(manifest(), "tiny", entry)
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    return entry


def test_the_manifest():
    of_rewards = {name for kind in rewards.registry().values() for name in kind.weights}
    of_detectors = {kind.weights for kind in detectors.registry().values() if kind.weights}
    assert of_rewards | of_detectors == set(manifest())
    for name, entry in manifest().items():
        assert name == entry.name and entry.title and entry.licence
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repository)
        for file in entry.files:
            assert file.bytes > 0 and re.fullmatch(r"[0-9a-f]{64}|", file.sha256)
        assert len({file.name for file in entry.files}) == len(entry.files)


def test_every_file_of_a_single_network_has_its_digest():
    assert all(entry.files[0].sha256 for entry in manifest().values() if len(entry.files) == 1)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_reward_says_what_it_lacks(name: str):
    with pytest.raises(MissingWeights) as caught:
        rewards.load(name)
    message = str(caught.value)
    assert message.startswith(f"reward {name!r} needs weights that are not here: ")
    assert message.endswith(f"`python -m benchmark fetch {name}` fetches them")
    assert "\n" not in message
    for each in rewards.registry()[name].weights:
        assert manifest()[each].title in message and manifest()[each].size in message


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (231508, "232 kB"),
        (3714759, "3.71 MB"),
        (1972490005, "1.97 GB"),
        (10_500_000_000, "10.5 GB"),
    ],
)
def test_sizes_in_words(size: int, words: str):
    assert in_words(size) == words


def test_a_folder_of_one_s_own(tiny: Weights, tmp_path: Path):
    assert not tiny.here
    with pytest.raises(MissingWeights, match="A tiny one lacks a file: a.bin is not here"):
        weights.paths("tiny")
    path = tmp_path / "tiny" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert tiny.here and weights.only_path("tiny") == path and weights.folder("tiny") == path.parent
    assert weights.tag(path) == f"weights {tiny.files[0].sha256[:12]}"


def test_the_hub_s_cache(tiny: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the layout that the hub's own client writes."""
    monkeypatch.delenv(weights.FOLDER_VARIABLE)
    repository = tmp_path / "cache" / "models--owner--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "a.bin").write_bytes(CONTENT)
    assert weights.only_path("tiny") == snapshot / "a.bin"


def test_another_file_of_that_name_is_refused(tiny: Weights, tmp_path: Path):
    path = tmp_path / "tiny" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(DamagedWeights, match="is not the released file of A tiny one") as caught:
        weights.paths("tiny")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
