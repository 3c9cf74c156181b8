"""Tables on stdout."""

from __future__ import annotations

import rich.table
from rich.console import Console, RenderableType
from rich.text import Text

from benchmark.errors import printable

WIDTH = 200
"""Columns where stdout is no terminal, so that nothing is cut in a file or a pipe."""


class Table(rich.table.Table):
    """A table whose text is shown as it stands: names in it may be anybody's, so neither rich's
    markup nor a control character in them does anything."""

    def add_row(self, *cells: RenderableType | None, **options: bool | str | None) -> None:
        """A row; see rich."""
        shown = [Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*shown, **options)  # type: ignore[arg-type]


def print_table(table: rich.table.Table) -> None:
    """Print at the width of the terminal, or in full elsewhere."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)
