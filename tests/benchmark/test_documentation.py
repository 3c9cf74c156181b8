"""``docs/commands.md`` names all there is."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from benchmark.errors import EXIT_CODES
from benchmark.suite import Budget, EvaluationSettings, ModelSettings, Prompts, Suite
from results import metrics
from results.metrics.interface import REGISTERED
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


def test_the_metric_of_the_page_works_as_it_stands() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # the page's own code
    try:
        features = [[[0.0, 1.0], [2.0, 1.0]]]
        assert names["Spread"]().measure(features).value == 0.5
    finally:
        REGISTERED.pop("spread")


def test_the_page_of_metrics_names_all_of_them() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .* \| (?:yes|no) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(metrics.registry())


def test_every_field_says_what_it_is() -> None:
    parts: list[type[BaseModel]] = [ModelSettings, Prompts, Budget, EvaluationSettings]
    fields = {
        f"{part.__name__}.{name}": i for part in parts for name, i in part.model_fields.items()
    }
    assert not [name for name, info in fields.items() if not info.description]
