"""Tables: as wide as the terminal, or plain aligned columns without one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Literal

import click

from snapferry.orchestrator.reporting.terminal import console, has_rich


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[str], fold: frozenset[str]
) -> None:
    """
    Print *rows* of printable texts below *head*.

    Columns named in *right* are aligned to the right; those in *fold* take several lines on a narrow terminal.
    """
    found = [tuple(row) for row in rows]
    if sys.stdout.isatty() and has_rich():
        _print_rich(head, found, right, fold)
        return
    widths = [max(len(row[column]) for row in (tuple(head), *found)) for column in range(len(head))]
    for row in (tuple(head), *found):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _print_rich(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], fold: frozenset[str]
) -> None:
    # As in `console`.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name not in fold, overflow="fold")
    for row in rows:
        # A plain string would be read as markup.
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)
