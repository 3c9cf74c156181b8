"""Turns pydantic's errors into one line: where it was read, which key, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.errors import UsageError, did_you_mean

KeyPath = tuple[str, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass
class Origins:
    """Where each value of a suite was read: its file and line, or an option."""

    file: Path
    lines: dict[KeyPath, int] = field(default_factory=dict)
    options: dict[KeyPath, str] = field(default_factory=dict)
    """Key path to the command-line option that set it."""

    def of(self, path: KeyPath) -> str:
        """The place of the value at ``path``, or of the nearest one that holds it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.options:
                return self.options[path[:length]]
            if path[:length] in self.lines:
                return f"{self.file}:{self.lines[path[:length]]}"
        return str(self.file)


def validate(model: type[Model], values: Any, origins: Origins, prefix: KeyPath = ()) -> Model:
    """``values`` as a ``model``; raises ``UsageError`` naming each wrong key and its place."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem, model, origins, prefix) for problem in error.errors()]
        raise UsageError("; ".join(dict.fromkeys(problems))) from error


def _explain(problem: Any, model: type[BaseModel], origins: Origins, prefix: KeyPath) -> str:
    inner = tuple(str(part) for part in problem["loc"])
    path = (*prefix, *inner)
    place, key = origins.of(path), ".".join(path)
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(inner[-1], _keys_at(model, inner[:-1]))
        return f"{place}: unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{place}: {key} is missing"
    if problem["type"] == "value_error":  # our own validators name the value themselves
        return f"{place}: {key}: {message}" if key else f"{place}: {message}"
    return f"{place}: {key}: {message[0].lower()}{message[1:]} (got {problem['input']!r:.60})"


def _keys_at(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """Names of the fields of the model nested at ``path``."""
    for part in path:
        info = model.model_fields.get(part)
        annotation = info.annotation if info else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
