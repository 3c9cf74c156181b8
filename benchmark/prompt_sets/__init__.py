"""Named lists of prompts, one ``.txt`` file each, and the rule that keeps two of them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import did_you_mean

FOLDER = Path(__file__).parent
_BACKGROUND = re.compile(r",\s*on an? \w+ background\s*$")
_ARTICLE = re.compile(r"^(an?|the) ")


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


def shared(train: Sequence[str], test: Sequence[str]) -> list[str]:
    """Test prompts whose subject and style occur together in a training prompt."""
    trained = {content(prompt) for prompt in train}
    return [prompt for prompt in test if content(prompt) in trained]


def subject(prompt: str) -> str:
    """What a prompt is of, in lower case: all before the first comma, without its article."""
    return _ARTICLE.sub("", " ".join(prompt.lower().split()).partition(",")[0].strip())


def shared_subjects(others: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Those of ``prompts`` whose subject one of ``others`` asks for, in whatever style."""
    taken = {subject(prompt) for prompt in others}
    return [prompt for prompt in prompts if subject(prompt) in taken]


def duplicates(prompts: Sequence[str]) -> list[str]:
    """Prompts that occur more than once."""
    return [prompt for prompt, times in Counter(prompts).items() if times > 1]
