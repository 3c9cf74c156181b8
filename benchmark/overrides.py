"""Options that change a suite: ``--methods``, ``--rewards``, ``--seeds``, ``--model``, ``--set``.

``--set KEY=VALUE`` takes the key path of any field of the suite, or ``METHOD.OPTION``, short for
``methods.METHOD.OPTION``; ``METHOD`` alone takes a mapping of all its options. The value is read
as YAML. Later options win over earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark import yaml_file
from benchmark.errors import UsageError, did_you_mean
from benchmark.matrix import CONTROLS
from benchmark.suite import Suite
from benchmark.validation import KeyPath, Origins
from results.states import FAILURES, State


@dataclass(frozen=True)
class Override:
    """One ``--set``."""

    path: KeyPath
    value: Any
    option: str
    """As typed, for messages."""


def parse(text: str) -> Override:
    """``budget.images=64`` as an override; raises ``UsageError`` if it is none."""
    option = f"--set {text}"
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise UsageError(f"{option}: not of the form KEY=VALUE, as in ddpo.learning_rate=1e-4")
    return Override(path, yaml_file.parse(value, option), option)


def changes(texts: Sequence[str], model: str | None = None) -> list[Override]:
    """All of ``--set`` as overrides, after ``--model``, which is short for ``model.name``."""
    named = [] if model is None else [Override(("model", "name"), model, f"--model {model}")]
    return [*named, *(parse(text) for text in texts)]


def split_names(text: str, option: str) -> list[str]:
    """Names of ``a,b``; raises ``UsageError`` when one is empty."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"{option} {text!r}: an empty name; write names with commas between")
    return names


def select(
    values: dict[str, Any],
    origins: Origins,
    methods: str | None = None,
    rewards: str | None = None,
    seeds: str | None = None,
) -> None:
    """Replace the suite's methods, rewards or seeds; options the suite gives a method stay."""
    if methods is not None:
        options = _as_mapping(values.get("methods"))
        chosen = split_names(methods, "--methods")
        values["methods"] = {name: options.get(name) or {} for name in chosen}
        for name in chosen:
            if name not in options:
                origins.options[("methods", name)] = f"--methods {methods}"
    if rewards is not None:
        values["rewards"] = split_names(rewards, "--rewards")
        origins.options[("rewards",)] = f"--rewards {rewards}"
    if seeds is not None:
        values["seeds"] = seeds
        origins.options[("seeds",)] = f"--seeds {seeds}"


def apply(values: dict[str, Any], origins: Origins, overrides: Sequence[Override]) -> None:
    """Set each override's value in ``values``; raises ``UsageError`` for a key that cannot be."""
    for override in overrides:
        path = _full_path(override, values)
        place = values
        for depth, part in enumerate(path[:-1], 1):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                parent = ".".join(path[:depth])
                raise UsageError(f"{override.option}: {parent} is a value, not a group of keys")
        place[path[-1]] = override.value
        origins.options[path] = override.option


def replace(values: dict[str, Any], origins: Origins, given: dict[str, Any]) -> None:
    """Set top-level fields by the options of their names, those that were given."""
    for name, value in given.items():
        if value is not None:
            values[name] = value
            origins.options[(name,)] = f"--{name.replace('_', '-')} {value:g}"


def retried(text: str | None) -> list[State]:
    """States of ``--retry failed,timed-out``; raises ``UsageError`` for one that is none."""
    if text is None:
        return []
    names = split_names(text, "--retry")
    known = {state.replace("_", "-"): state for state in FAILURES}
    for name in names:
        if name not in (*known, "all"):
            raise UsageError(
                f"--retry {text}: unknown state {name!r}; {did_you_mean(name, [*known, 'all'])}"
            )
    return list(FAILURES) if "all" in names else [known[name] for name in names]


def _full_path(override: Override, values: dict[str, Any]) -> KeyPath:
    """Key path from the root of the suite, ``METHOD.OPTION`` written out."""
    fields = list(Suite.model_fields)
    path = override.path
    if path[0] not in fields:
        from methods import registry  # imports torch: only when a method is named

        if path[0] not in registry():
            hint = did_you_mean(path[0], [*fields, *registry()])
            raise UsageError(f"{override.option}: unknown key {path[0]!r}; {hint}")
        path = ("methods", *path)
    if path[0] == "methods" and len(path) > 1:
        values["methods"] = _as_mapping(values.get("methods"))
        _check_chosen(path[1], values["methods"], override.option)
    return path


def _check_chosen(method: str, chosen: dict[str, Any], option: str) -> None:
    if method not in chosen and method not in CONTROLS:
        raise UsageError(
            f"{option}: {method!r} is not among the methods of this run ({', '.join(chosen)})"
        )


def _as_mapping(methods: Any) -> dict[str, Any]:
    """Methods of a suite file, which may be a list, as a mapping to their options."""
    if isinstance(methods, list):
        return {str(name): {} for name in methods}
    return dict(methods) if isinstance(methods, dict) else {}
