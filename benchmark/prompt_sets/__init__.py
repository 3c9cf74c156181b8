"""Named lists of prompts, and how a suite names them.

``NAME[/SUBSET][:SPLIT][=PATH]``: a set of ``catalogue.SETS``, a subset of it, one side of a split,
and for a set that does not come with the program the file that holds it. A name that ends in
``.txt`` is a file of one's own.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from benchmark.errors import did_you_mean
from benchmark.prompt_sets import splits
from benchmark.prompt_sets.catalogue import SETS, PromptSet
from benchmark.prompt_sets.files import Line, read_lines, read_set
from benchmark.prompt_sets.overlap import content, duplicates, shared, shared_subjects, subject

__all__ = [
    "ELSEWHERE",
    "SETS",
    "content",
    "duplicates",
    "names",
    "read",
    "shared",
    "shared_subjects",
    "subject",
]

FOLDER = Path(__file__).parent
ELSEWHERE = Path("prompts")
"""Folder, below the current one, that holds the sets which do not come with the program."""
_SPECIFICATION = re.compile(r"([^/:=]+)(?:/([^:=]+))?(?::([^=]+))?(?:=(.+))?")


def names() -> list[str]:
    """Names of the prompt sets that come with the program."""
    return sorted(name for name, found in SETS.items() if found.shipped)


def read(name: str) -> tuple[str, ...]:
    """Prompts of a named set or part of it, or of a text file of one prompt a line.

    Raises ``ValueError`` naming the nearest set, the part that is not there, or the file that
    cannot be read or is not what its name promises.
    """
    asked = _SPECIFICATION.fullmatch(name)
    known = asked is not None and asked[1] in SETS
    if name.endswith(".txt") and not known:
        return tuple(read_lines(Path(name)))
    if asked is None or not known:
        raise ValueError(f"unknown prompt set {name!r}; {did_you_mean(name, SETS)}")
    which, subset, split, path = SETS[asked[1]], asked[2] or "", asked[3] or "", asked[4]
    if which.shipped and path:
        raise ValueError(f"prompt set {which.name!r} comes with the program and takes no path")
    prompts = splits.choose(which, _lines(which, path), subset, split)
    if not prompts:
        raise ValueError(f"prompt set {name!r} is empty")
    return tuple(prompts)


def _lines(which: PromptSet, path: str | None) -> list[Line]:
    if which.shipped:
        return read_set(which, FOLDER / (which.file or f"{which.name}.txt"))
    place = Path(path) if path else ELSEWHERE / which.file
    if not place.exists():
        holds = f"{which.count} prompts, " if which.count else ""
        raise ValueError(
            f"prompt set {which.name!r} is not part of the program and not at {place}: put it "
            f"there or write {which.name}=PATH ({holds}licence {which.licence}: {which.source})"
        )
    lines = read_set(which, place)
    _check(which, lines, place)
    return lines


def _check(which: PromptSet, lines: list[Line], place: Path) -> None:
    """Raise ``ValueError`` unless these are the published prompts, by number and hash."""
    counts = {"": len(lines)}
    for line in lines:
        if line.subset:
            counts[line.subset] = counts.get(line.subset, 0) + 1
    expected = {"": which.count, **which.subsets} if which.count else {}
    for subset, count in expected.items():
        if counts.get(subset, 0) != count:
            part = f"{which.name}/{subset}" if subset else which.name
            raise ValueError(
                f"{place} holds {counts.get(subset, 0)} prompts of {part}, and {count} are expected"
            )
    text = "".join(f"{line.prompt}\n" for line in lines)
    if which.sha256 and hashlib.sha256(text.encode()).hexdigest() != which.sha256:
        raise ValueError(f"{place} holds other prompts than {which.name}: their SHA-256 differs")
