"""CSV that no spreadsheet takes for formulas; pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from snapferry.stores.text.printable import printable

# What begins a formula, also as a wide character. Where lists are separated by semicolons, a spreadsheet begins a new
# cell at each one.
_begins_formula: Final = re.compile("(^|;)([ \"']*)(?=[=+@\uff1d\uff0b\uff0d\uff20-])")


def cell(value: object) -> str:
    """Return a value as the text of a cell; control characters in texts are escaped."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return _begins_formula.sub(r"\1'\2", printable(str(value)))


def lines(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield the lines of a CSV file: the names of the columns, then the rows. Every cell is quoted."""
    yield _line(head)
    for row in rows:
        yield _line(row)


def _line(row: Iterable[object]) -> str:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(map(cell, row))
    return written.getvalue()
