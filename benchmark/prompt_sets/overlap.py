"""The rule that keeps two lists of prompts apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_BACKGROUND = re.compile(r",\s*on an? \w+ background\s*$")
_ARTICLE = re.compile(r"^(an?|the) ")


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
