"""Choices of a page, and turning the pages of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True)
class Link:
    """A choice: its text, its address, and whether it is the one that is shown."""

    text: str
    href: str
    current: bool = False


@dataclass(frozen=True)
class Pages:
    """The page of a list of *total* rows that shows *first* to *last*, from 1; its neighbours, "" without one."""

    first: int
    last: int
    total: int
    newer: str
    older: str


def pages(
    total: int, page: int, length: int, here: str, kept: Mapping[str, str], name: str = "page"
) -> Pages:
    """
    Return *page* of a list of *total* rows, *length* to a page; beyond the last page, the last one.

    Links lead to the address *here* with the parameters *kept*; *name* is the parameter that has the page's number.
    """
    page = min(page, max(1, -(-total // length)))

    def to(number: int) -> str:
        anchor = "" if name == "page" else name
        return href(here, dict(kept) | {name: str(number) if number > 1 else ""}, anchor)

    return Pages(
        first=(page - 1) * length + 1 if total else 0,
        last=min(total, page * length),
        total=total,
        newer=to(page - 1) if page > 1 else "",
        older=to(page + 1) if page * length < total else "",
    )


def exports(base: str, kinds: Sequence[str], kept: Mapping[str, str]) -> list[Link]:
    """Return links to files of some *kinds*: the address *base* with the kind, and with the parameters *kept*."""
    return [Link(kind.removesuffix("l").upper(), href(f"{base}.{kind}", kept)) for kind in kinds]


def href(here: str, parameters: Mapping[str, str], anchor: str = "") -> str:
    """Return the address *here* with *parameters*, without those that are empty."""
    query = urlencode({name: value for name, value in parameters.items() if value})
    return here + (f"?{query}" if query else "") + (f"#{anchor}" if anchor else "")
