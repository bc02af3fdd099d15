"""Tables of what was measured, with the bar beside each number."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["at_least", "at_most", "console", "note", "table"]

# Wide enough for the tables where the output is no terminal.
console = Console(width=None if sys.stdout.isatty() else 120)


def at_most(value: float, bar: float, form: str = "{:.2f}") -> tuple[str, str]:
    """A number and its upper bar."""
    return _judged(value <= bar, form.format(value), "≤ " + form.format(bar))


def at_least(value: float, bar: float, form: str = "{:,.0f}") -> tuple[str, str]:
    """A number and its lower bar."""
    return _judged(value >= bar, form.format(value), "≥ " + form.format(bar))


def _judged(fine: bool, value: str, bar: str) -> tuple[str, str]:
    colour = "green" if fine else "red"
    return f"[{colour}]{value}[/{colour}]", f"{bar} {'✓' if fine else '✗'}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table; the first column is words, the others are numbers."""
    made = Table(title=title, title_justify="left", caption=caption or None, caption_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    console.print(made)
    console.print()


def note(text: str) -> None:
    """Say what is going on."""
    console.print(Text(text, style="dim"))
