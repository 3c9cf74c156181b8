"""Prompts from the files that sets are published in: text, CSV, TSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.prompt_sets.catalogue import PromptSet


@dataclass(frozen=True)
class Line:
    """A prompt and the subset that it is of, ``""`` where there are none."""

    prompt: str
    subset: str = ""


def read_lines(path: Path) -> list[str]:
    """Prompts of a text file, one a line; ``#`` begins a comment line.

    Raises ``ValueError`` naming the file that cannot be read.
    """
    lines = _text(path).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_set(which: PromptSet, path: Path) -> list[Line]:
    """All prompts of a set in its published order, repeated ones included; of a set of several
    files, ``path`` is their folder. Raises ``ValueError``."""
    if which.subsets and not which.subset_column:
        return [Line(prompt, name) for name in which.subsets for prompt in _part(path, name)]
    return _read(which, path)


def _part(folder: Path, subset: str) -> list[str]:
    """Prompts of the file of a subset, under either of its two published names."""
    names = [f"{subset}.json", f"benchmark_{subset}.json"]
    for name in names:
        if (folder / name).is_file():
            values = _json(folder / name, _text(folder / name))
            if isinstance(values, list) and all(isinstance(value, str) for value in values):
                return [value.strip() for value in values]
            raise ValueError(f"prompt file {folder / name} is no JSON list of texts")
    raise ValueError(f"prompt folder {folder} lacks {names[0]}")


def _read(which: PromptSet, path: Path) -> list[Line]:
    kind = path.suffix.lower() if which.column else ".txt"
    if kind in (".csv", ".tsv"):
        stream = io.StringIO(_text(path), newline="")
        rows = csv.DictReader(stream)
        if kind == ".tsv":  # tabs separate without quotes: texts hold quotation marks of their own
            rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            return _of_rows(rows, which, path)
        except csv.Error as error:
            raise ValueError(f"prompt file {path} cannot be read: {error}") from error
    if kind == ".jsonl":
        return _of_rows((_json(path, line) for line in _text(path).splitlines()), which, path)
    if kind == ".json":
        values = _json(path, _text(path))
        return _of_rows(values if isinstance(values, list) else [values], which, path)
    if kind == ".parquet":
        return _of_rows(_parquet(which, path), which, path)
    return [Line(prompt) for prompt in read_lines(path)]


def _of_rows(rows: Iterable[Any], which: PromptSet, path: Path) -> list[Line]:
    lines = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, str) and not which.subset_column:
            lines.append(Line(row.strip()))
            continue
        values = row if isinstance(row, Mapping) else {}
        wanted = [column for column in (which.column, which.subset_column) if column]
        for column in wanted:
            if not isinstance(values.get(column), str):
                raise ValueError(f"prompt file {path}: row {number} has no text {column!r}")
        texts = [values[column].strip() for column in wanted]
        lines.append(Line(*texts))
    return lines


def _parquet(which: PromptSet, path: Path) -> list[dict[str, Any]]:
    try:
        import pandas

        columns = [column for column in (which.column, which.subset_column) if column]
        return pandas.read_parquet(path, columns=columns).to_dict("records")
    except (ImportError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"prompt file {path} cannot be read: {reason}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompt file {path} cannot be read: {error}") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"prompt file {path} is no JSON: {error}") from error
