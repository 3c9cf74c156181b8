"""Tables on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

WIDTH = 200
"""Columns where stdout is no terminal, so that nothing is cut in a file or a pipe."""


def print_table(table: Table) -> None:
    """Print at the width of the terminal, or in full elsewhere."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)
