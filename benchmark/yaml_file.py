"""YAML as suites use it: safe, numbers such as ``1e-4`` are numbers, keys occur once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import UsageError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with two traps of YAML 1.1 taken out."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is text, not a list or a mapping", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot in a float: without this rule 1e-4 is a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse(text: str, source: str | Path) -> Any:
    """The value of one YAML document.

    Raises ``UsageError`` naming ``source`` (a file or an option) and the line in a file.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}" if mark and isinstance(source, Path) else ""
        raise UsageError(f"{source}{place}: malformed YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: malformed YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{source}: malformed YAML: nested too deeply") from error


def read(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; raises ``UsageError`` for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    value = parse(text, path)
    if not isinstance(value, dict):
        raise UsageError(f"{path}: a suite is a mapping of keys to values, not {_kind(value)}")
    return value


def key_lines(path: Path) -> dict[tuple[str, ...], int]:
    """Key path to its line in the file (from 1), for messages."""
    lines: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node | None, prefix: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*prefix, str(key.value))
                lines[here] = key.start_mark.line + 1
                walk(value, here)

    walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader), ())
    return lines


def _kind(value: Any) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
