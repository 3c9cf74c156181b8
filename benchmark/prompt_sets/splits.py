"""Parts of a prompt set: subsets, equal mixtures of them, and splits that nothing can move.

A prompt's side is decided by the SHA-256 of its subject, the text before the first comma in lower
case and without its article, as ``overlap.subject`` reads it. So it is the same on every machine
and in whatever order and company the prompt is read, and no two sides share a subject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

from benchmark.errors import did_you_mean
from benchmark.prompt_sets.catalogue import PromptSet
from benchmark.prompt_sets.files import Line
from benchmark.prompt_sets.overlap import content, subject

SHARES = {"train": 0.8, "validation": 0.1, "held-out": 0.1}
"""Split to its share of subjects."""
RELEASED = ("released-train", "released-held-out")
"""The split of published code: the first prompts of each subset are held out."""


def side(prompt: str) -> str:
    """The split that a prompt is in."""
    digest = hashlib.sha256(subject(prompt).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return "held-out"  # the shares may add up to a little less than 1


def names(which: PromptSet) -> list[str]:
    """Splits that a set has."""
    return [*SHARES, *(RELEASED if which.held_out_first else ())]


def choose(which: PromptSet, lines: Sequence[Line], subset: str, split: str) -> list[str]:
    """Prompts of a subset (of all if empty) and a split (all if empty), each once.

    ``a+b`` as the subset takes as many prompts of ``a`` as of ``b``: those of the larger whose
    hashes come first. Raises ``ValueError`` for a subset or split that the set has not.
    """
    if split and split not in names(which):
        raise ValueError(
            f"prompt set {which.name!r} has no split {split!r}; {did_you_mean(split, names(which))}"
        )
    wanted = subset.split("+") if subset else []
    known = list(which.subsets) or list(dict.fromkeys(line.subset for line in lines))
    for name in wanted:
        if name not in known or not name:
            hint = did_you_mean(name, known) if any(known) else "it has none"
            raise ValueError(f"prompt set {which.name!r} has no subset {name!r}; {hint}")
    if split in RELEASED:
        lines = _released(which, lines, split)
    elif split:
        lines = [line for line in lines if side(line.prompt) == split]
    if not wanted:
        return list(dict.fromkeys(line.prompt for line in lines))
    return _mixed([[line.prompt for line in lines if line.subset == name] for name in wanted])


def _released(which: PromptSet, lines: Sequence[Line], split: str) -> list[Line]:
    """Published code splits by position and keeps what is repeated on the other side: of the
    training prompts, those that are held out as well are left out here."""
    held_out: list[Line] = []
    rest: list[Line] = []
    seen: dict[str, int] = {}
    for line in lines:
        if line.subset in which.left_out:
            continue
        seen[line.subset] = seen.get(line.subset, 0) + 1
        (held_out if seen[line.subset] <= which.held_out_first else rest).append(line)
    if split == "released-held-out":
        return held_out
    taken = {content(line.prompt) for line in held_out}
    return [line for line in rest if content(line.prompt) not in taken]


def _mixed(parts: list[list[str]]) -> list[str]:
    """Equally many prompts of each part, in turns; a prompt of several counts for the first."""
    seen: set[str] = set()
    distinct = []
    for part in parts:
        distinct.append([prompt for prompt in dict.fromkeys(part) if prompt not in seen])
        seen.update(part)
    size = min(map(len, distinct))
    kept = []
    for part in distinct:
        first = set(sorted(part, key=_digest)[:size])
        kept.append([prompt for prompt in part if prompt in first])
    return list(chain.from_iterable(zip(*kept, strict=True)))


def _digest(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()
