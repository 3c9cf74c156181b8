"""``docs/commands.md`` names all there is."""

from __future__ import annotations

import re

from pydantic import BaseModel

from benchmark.errors import EXIT_CODES
from benchmark.suite import Budget, EvaluationSettings, ModelSettings, Prompts, Suite
from tests.benchmark.conftest import ROOT

TEXT = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def suite_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += suite_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def test_exactly_the_keys_of_a_suite() -> None:
    table = TEXT[TEXT.index("## Suite files") :]
    assert re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE) == suite_keys(Suite)


def test_exactly_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_every_field_says_what_it_is() -> None:
    parts: list[type[BaseModel]] = [ModelSettings, Prompts, Budget, EvaluationSettings]
    fields = {
        f"{part.__name__}.{name}": i for part in parts for name, i in part.model_fields.items()
    }
    assert not [name for name, info in fields.items() if not info.description]
