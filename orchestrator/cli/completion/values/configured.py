"""
Names of stores, mirrors and scrubs in snapferry.toml.

The file is read as TOML and not checked against its model: that takes three times as long, and a name in a file with a
fault elsewhere is still a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from snapferry.workers.settings.toml_file import read_toml

# Of the user's own directory for the configuration; `Settings` has the same.
_HERE: Final = "snapferry.toml"


def stores(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the names of stores; for the beginning of a path, let the shell complete directories."""
    if incomplete.startswith(("/", ".", "~", "file:")) or ("/" in incomplete and ":" not in incomplete):
        yield CompletionItem(incomplete, "dir")
        return
    found = {name: _url(value) for name, value in _table(ctx, "stores").items()}
    yield from _beginning(found, incomplete)
    if not found and not incomplete:
        yield CompletionItem("", "dir")


def scheduled(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the names of mirrors and scrubs; a name that both have with its kind, as ``mirror:NAME``."""
    kinds = {"mirror": _mirrors(ctx), "scrub": _scrubs(ctx)}
    both = kinds["mirror"].keys() & kinds["scrub"].keys()
    for kind, found in kinds.items():
        whole = incomplete.startswith(f"{kind}:")
        named = {f"{kind}:{name}" if whole or name in both else name: text for name, text in found.items()}
        yield from _beginning(named, incomplete)


def queue_users(ctx: click.Context) -> dict[str, list[str]]:
    """Return the queues in the file, each with the mirrors and scrubs that use it."""
    found: dict[str, list[str]] = {}
    for kind in ("mirror", "scrub"):
        for name, table in _rows(ctx, kind):
            if isinstance(queue := table.get("queue"), str):
                found.setdefault(queue, []).append(f"{kind} {name}")
    return found


def _beginning(found: dict[str, str], incomplete: str) -> Iterator[CompletionItem]:
    for name in sorted(found):
        if name.startswith(incomplete):
            yield CompletionItem(name, help=found[name])


def _mirrors(ctx: click.Context) -> dict[str, str]:
    return {
        name: f"mirror of {_url(table.get('from'))} to {_url(table.get('to'))}"
        for name, table in _rows(ctx, "mirror")
    }


def _scrubs(ctx: click.Context) -> dict[str, str]:
    return {name: f"scrub of {_url(table.get('store'))}" for name, table in _rows(ctx, "scrub")}


def _rows(ctx: click.Context, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _read(ctx).get(kind)
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            yield row["name"], row


def _table(ctx: click.Context, name: str) -> dict[str, Any]:
    found = _read(ctx).get(name)
    return found if isinstance(found, dict) else {}


def _read(ctx: click.Context) -> dict[str, Any]:
    path = ctx.params.get("config") or (_HERE if os.path.exists(_HERE) else None)
    return read_toml(path) if path else {}


def _url(value: object) -> str:
    """Return the URL of a store without its parameters."""
    text = value.get("url", "") if isinstance(value, dict) else value
    return str(text or "").partition("?")[0]
