"""Records as JSON text: strict, and read again with a clear line for what does not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from results.records import READABLE_VERSIONS, VERSIONLESS, Record

RecordType = TypeVar("RecordType", bound=Record)


class ResultsError(Exception):
    """A run folder that cannot be used; the message is one line that says why."""


def dump(record: Record, indent: int | None = None) -> str:
    """JSON text of a record, on one line without ``indent``."""
    return json.dumps(plain(record.model_dump()), indent=indent, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Non-finite floats as strings: JSON has no NaN, and pydantic reads these back as floats."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def parse(path: Path, text: str, kind: type[RecordType], where: str = "") -> RecordType:
    """A record out of JSON text that was read from ``path``, at ``where`` in it.

    Raises ResultsError for damage, and for another schema version.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ResultsError(f"{path}{where}: damaged: {one_line(error)}") from error
    if "schema_version" in kind.model_fields and isinstance(fields, dict):
        # Looked at first: with another version, other fields are to be expected.
        if kind.__name__ in VERSIONLESS:
            fields.setdefault("schema_version", 2)
        check_version(path, fields.get("schema_version"))
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ResultsError(f"{path}{where}: damaged: {field}: {first['msg']}") from error


def check_version(path: Path, version: Any) -> None:
    """Raises ResultsError for the schema version of a file that is not read."""
    if version in READABLE_VERSIONS:
        return
    *others, last = map(str, READABLE_VERSIONS)
    readable = f"{', '.join(others)} and {last}"
    raise ResultsError(f"{path}: schema version {version!r}, but this program reads {readable}")


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())
