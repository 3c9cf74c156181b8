"""Tables on stdout."""

from __future__ import annotations

import rich.table
from rich.console import Console, RenderableType
from rich.style import StyleType
from rich.text import Text

from benchmark.errors import printable

WIDTH = 200
"""Columns where stdout is no terminal, so that nothing is cut in a file or a pipe."""


class Table(rich.table.Table):
    """A table whose text is shown as it stands: names in it may be anybody's, so neither rich's
    markup nor a control character in them does anything."""

    def add_row(
        self,
        *renderables: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        """A row; see rich."""
        shown = [Text(printable(each)) if isinstance(each, str) else each for each in renderables]
        super().add_row(*shown, style=style, end_section=end_section)


def print_table(table: rich.table.Table) -> None:
    """Print at the width of the terminal, or in full elsewhere."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)
