"""The hash of a cell's source: what changes it, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import methods
import rewards
from benchmark import fingerprint
from tests.benchmark.conftest import ROOT

CELL = fingerprint.CELL
DDPO, DAG, ALIGNPROP = ([CELL, f"methods.{name}"] for name in ("ddpo", "dag", "alignprop"))


def forget() -> None:
    for function in (fingerprint._path, fingerprint._tree, fingerprint._imported):
        function.cache_clear()
    fingerprint.module_digest.cache_clear()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the source, which the hash is taken of."""
    for package in fingerprint.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.png", "*.json", "*.txt")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def changed_by(folder: Path, file: str, text: str) -> set[str]:
    """Methods whose fingerprint another text at the end of a file changes."""
    roots = {"ddpo": DDPO, "dag": DAG, "alignprop": ALIGNPROP}
    before = {name: fingerprint.fingerprint(modules) for name, modules in roots.items()}
    with open(folder / file, "a", encoding="utf-8") as stream:
        stream.write(text)
    forget()
    return {
        name for name, modules in roots.items() if fingerprint.fingerprint(modules) != before[name]
    }


@pytest.mark.parametrize(
    ("file", "methods_changed"),
    [
        ("methods/ddpo.py", {"ddpo"}),
        ("methods/dag.py", {"dag"}),
        ("methods/optimizer.py", {"ddpo", "dag", "alignprop"}),
        ("diffusion/rollout.py", {"ddpo", "dag", "alignprop"}),
        ("benchmark/evaluation.py", {"ddpo", "dag", "alignprop"}),
        ("results/diversity.py", {"ddpo", "dag", "alignprop"}),
        ("methods/trl_ddpo.py", set()),
        ("results/store.py", set()),
        ("benchmark/cli.py", set()),
    ],
)
def test_only_the_cells_that_use_a_module_change_with_it(
    copy: Path, file: str, methods_changed: set[str]
) -> None:
    assert changed_by(copy, file, "\nANOTHER = 1\n") == methods_changed


def test_what_nobody_computes_with_changes_nothing(copy: Path) -> None:
    text = '\n# a comment\n"""A string."""\n'
    assert changed_by(copy, "methods/ddpo.py", text) == set()
    path = copy / "methods" / "ddpo.py"
    source = path.read_text(encoding="utf-8")
    assert source.startswith('"""')
    path.write_text('"""Another docstring."""' + source[source.index('"""', 3) + 3 :])
    before = fingerprint.fingerprint(DDPO)
    forget()
    assert fingerprint.fingerprint(DDPO) == before


def test_a_number_in_the_code_counts(copy: Path) -> None:
    before = fingerprint.fingerprint(DDPO)
    path = copy / "methods" / "ddpo.py"
    source = path.read_text(encoding="utf-8")
    assert "1e-" in source or "0." in source
    path.write_text(source.replace("1e-", "2e-").replace("0.", "1."), encoding="utf-8")
    forget()
    assert fingerprint.fingerprint(DDPO) != before


def test_a_reward_counts_and_another_does_not(copy: Path) -> None:
    style, colour = ([CELL, f"rewards.{name}"] for name in ("style", "colourfulness"))
    before = [fingerprint.fingerprint(roots) for roots in (style, colour)]
    with open(copy / "rewards" / "style.py", "a", encoding="utf-8") as stream:
        stream.write("\nANOTHER = 1\n")
    forget()
    after = [fingerprint.fingerprint(roots) for roots in (style, colour)]
    assert after[0] != before[0] and after[1] == before[1]


def test_it_does_not_depend_on_where_the_source_lies(copy: Path) -> None:
    there = fingerprint.fingerprint(DAG)
    fingerprint.ROOT = ROOT
    forget()
    assert fingerprint.fingerprint(DAG) == there == fingerprint.fingerprint(DAG[::-1])


def test_the_modules_of_everything_registered_are_found() -> None:
    found = [
        kind.__module__ for kind in (*methods.registry().values(), *rewards.registry().values())
    ]
    for module in found:
        assert module in fingerprint.closure([module])
    assert "diffusion.rollout" in fingerprint.closure([CELL])
    with pytest.raises(ValueError, match="typing is no module of benchmark"):
        fingerprint.closure(["typing"])


def test_bookkeeping_names_modules_that_are_there() -> None:
    assert not [name for name in fingerprint.BOOKKEEPING if fingerprint._path(name) is None]
