"""Imports run one way: the rule of the README, checked on the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "benchmark": {"diffusion", "methods", "rewards", "results", "reports"},
    "methods": {"diffusion"},
    "reports": {"results"},
    "rewards": set(),
    "diffusion": set(),
    "results": set(),
}


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    others = set(ALLOWED) - ALLOWED[package] - {package}
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported_packages(path) & others)
        for path in files
        if imported_packages(path) & others
    }
    assert not wrong


def test_a_forbidden_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from methods.ddpo import Ddpo\n    import benchmark.cli\n")
    assert imported_packages(path) == {"methods", "benchmark"}
