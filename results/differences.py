"""What differs between cells: where they ran, and what they were asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from results.records import CellConfig
from results.scores import original_name
from results.store import Cell

NOT_SET = "not set"
OWN = {"schema_version", "cell_id", "method", "reward", "seed", "method_config", "source"}
"""Fields of a config in which cells differ by what they are, and those compared by method."""


@dataclass(frozen=True)
class Property:
    """One property of the cells, with the cells of each value it has."""

    name: str
    values: dict[str, list[str]]
    """Value as text to cell ids."""

    @property
    def differs(self) -> bool:
        """Whether cells differ in it."""
        return len(self.values) > 1


def environments(cells: Iterable[Cell]) -> list[Property]:
    """Every property of where the cells ran; cells that have not started are left out."""
    found = {}
    for cell in cells:
        if cell.environment is not None:
            fields = cell.environment.model_dump(exclude={"schema_version", "versions", "command"})
            fields["commit"] = _commit(fields.pop("commit"), fields.pop("dirty"))
            versions = {f"version of {k}": v for k, v in cell.environment.versions.items()}
            named = {name.replace("_", " "): value for name, value in fields.items()}
            found[cell.cell_id] = named | versions
    return _properties(found)


def _commit(commit: str | None, dirty: bool | None) -> str:
    if commit is None:
        return "not recorded"
    return f"{commit[:12]}, with changes" if dirty else commit[:12]


def settings(cells: Iterable[Cell]) -> list[Property]:
    """Settings in which cells differ that need not: those of all cells, then those of a method.

    In the cells of one run there are none.
    """
    started = [cell for cell in cells if cell.config is not None]
    found = _properties({cell.cell_id: _common(cell) for cell in started})
    for method in dict.fromkeys(original_name(cell.method) for cell in started):
        own = {
            cell.cell_id: _flat(_of_method(cell.config), method)
            for cell in started
            if cell.config is not None and original_name(cell.method) == method
        }
        found += _properties(own)
    return [each for each in found if each.differs]


def _common(cell: Cell) -> dict[str, Any]:
    assert cell.config is not None
    fields = cell.config.model_dump(mode="json", exclude=OWN)
    fields["rewards"] = sorted(fields["rewards"])
    fields["weights"] = fields["weights"] or NOT_SET
    return _flat(fields)


def _of_method(config: CellConfig) -> dict[str, Any]:
    return config.method_config | {"source code": config.source or NOT_SET}


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{prefix}.{name}" if prefix else name
        flat |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return flat


def _properties(found: dict[str, dict[str, Any]]) -> list[Property]:
    names = dict.fromkeys(name for fields in found.values() for name in fields)
    properties = []
    for name in names:
        values: dict[str, list[str]] = {}
        for cell_id, fields in found.items():
            values.setdefault(_text(fields.get(name, NOT_SET)), []).append(cell_id)
        properties.append(Property(name, values))
    return properties


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
