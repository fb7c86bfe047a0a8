"""Results of any length on standard output, some lines at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import click

# Lines that are written at once.
_LINES: Final = 500


def print_lines(lines: Iterable[str]) -> None:
    """Print *lines*, which must be printable."""
    rest = iter(lines)
    while some := list(islice(rest, _LINES)):
        click.echo("\n".join(some))


def print_list(documents: Iterable[Any]) -> None:
    """Print a JSON list of *documents*, one a line. If they end with an error, the list has no end."""
    print_lines(_list_lines("[", documents, "]"))


def print_document(head: Mapping[str, Any], name: str, documents: Iterable[Any]) -> None:
    """Print *head* as a JSON object with one more field *name*: a list of *documents*, as `print_list` does."""
    fields = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    print_lines(_list_lines(f"{{\n{fields},\n  {json.dumps(name)}: [", documents, "]\n}"))


def _list_lines(begin: str, documents: Iterable[Any], end: str) -> Iterator[str]:
    held = begin
    separator = ""
    for document in documents:
        yield held + separator
        held, separator = json.dumps(document), ","
    if separator:
        yield held
        yield end
    else:
        yield begin + end
