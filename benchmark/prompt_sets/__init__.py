"""Named lists of prompts, one ``.txt`` file each, and the rule that keeps two of them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import did_you_mean

FOLDER = Path(__file__).parent
_BACKGROUND = re.compile(r",\s*on an? \w+ background\s*$")


def names() -> list[str]:
    """Names of the prompt sets that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(name: str) -> tuple[str, ...]:
    """Prompts of a named set, or of a text file of one prompt a line; ``#`` begins a comment line.

    Raises ``ValueError`` naming the nearest set, or the file that cannot be read.
    """
    path = FOLDER / f"{name}.txt"
    if name.endswith(".txt"):
        path = Path(name)
    elif name not in names():
        raise ValueError(f"unknown prompt set {name!r}; {did_you_mean(name, names())}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompt file {path} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def content(prompt: str) -> str:
    """What a prompt asks for apart from the background: subject and style, in lower case."""
    return _BACKGROUND.sub("", " ".join(prompt.lower().split()))


def shared(train: Sequence[str], evaluation: Sequence[str]) -> list[str]:
    """Evaluation prompts whose subject and style occur together in a training prompt."""
    trained = {content(prompt) for prompt in train}
    return [prompt for prompt in evaluation if content(prompt) in trained]


def duplicates(prompts: Sequence[str]) -> list[str]:
    """Prompts that occur more than once."""
    return [prompt for prompt, times in Counter(prompts).items() if times > 1]
