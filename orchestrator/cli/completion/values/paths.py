"""
The paths in a snapshot, one level of directories at a time.

A manifest is read whole before a line of it is believed. So a long one is not read: it would take longer than TAB has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import click
from click.shell_completion import CompletionItem

from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.names.lookup import find_snapshot
from snapferry.stores.runtime.bounds import bounds, set_bounds

from .snapshots import store_of

LONGEST_MANIFEST: Final = 64 * 1024 * 1024
"""Bytes of a manifest whose paths are offered: some hundred thousand lines."""

MOST_PATHS: Final = 1000
"""Paths that are offered. Of more, none: the user types another character."""


def paths(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield what the named snapshot has in the directory that *incomplete* names; directories end with ``/``."""
    snapshot = ctx.params.get("snapshot")
    store = store_of(ctx, "store") if snapshot else None
    if store is None:
        return
    folder, slash, part = incomplete.rpartition("/")
    typed = folder + slash
    with _short_manifests(), store.read_manifest(find_snapshot(store, str(snapshot))) as manifest:
        for name in _names(manifest, _path(typed), part.encode(errors="surrogatepass")):
            # Without ``./``, a name with a dash would be an option.
            start = "./" if not typed and name.startswith(b"-") else typed
            yield CompletionItem(start + name.decode(), type="path")


def _names(manifest: Manifest, folder: bytes, part: bytes) -> list[bytes]:
    """Return the names directly in *folder* that begin with *part*, none if there are too many."""
    found: dict[bytes, None] = {}
    start = folder + part
    for fields in manifest.fields():
        path = fields[4]
        if not path.startswith(start):
            if path > start:
                # Lines are sorted by these bytes.
                break
            continue
        name, slash, _ = path[len(folder) :].partition(b"/")
        if name:
            found[name + slash] = None
        if len(found) > MOST_PATHS:
            return []
    return list(found)


def _path(typed: str) -> bytes:
    """Return the directory *typed*, with a slash at its end or empty, as manifests have it."""
    return (typed if typed.startswith(("./", "/")) else f"./{typed}").encode(errors="surrogatepass")


@contextmanager
def _short_manifests() -> Iterator[None]:
    """Refuse manifests above `LONGEST_MANIFEST` within this block."""
    before = bounds()
    set_bounds(replace(before, manifest_bytes=min(before.manifest_bytes, LONGEST_MANIFEST)))
    try:
        yield
    finally:
        set_bounds(before)
