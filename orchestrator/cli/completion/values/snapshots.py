"""
The snapshots of the store that the command line names, and their names.

The store is opened for reading where this configuration lets jobs read (`AccessPolicy`): TAB sends nothing, and no
credentials, to an endpoint that neither the configuration nor the environment names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import click
from click.shell_completion import CompletionItem

from snapferry.orchestrator.places.named_store import named_url
from snapferry.stores.access import Right
from snapferry.stores.address import SnapshotId
from snapferry.stores.names.lookup import short_ids
from snapferry.stores.names.name import LATEST, MARK, Name
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.directory_rules import apply_to_directories
from snapferry.workers.settings.environment import store_options

from .configured import stores
from .settings import settings_of

MOST_SNAPSHOTS: Final = 1000
"""Ids that are offered: one page of a bucket's listing. Of more, none: the user types another digit."""

# Names that are read, to show which snapshot has them.
_MOST_READ: Final = 50

_is_start = re.compile(r"[0-9a-f]{1,64}").fullmatch


def snapshots(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield ids, names and ``latest``, of the store that the command reads."""
    store = store_of(ctx, "store", "source", "first")
    if store is not None:
        yield from _snapshots(store, incomplete)


def names(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the names that the store has."""
    store = store_of(ctx, "store", "destination", "place")
    if store is not None:
        known = _by_name(store)
        for name, snapshot_id in known.items():
            if name.startswith(incomplete):
                yield CompletionItem(name, help=snapshot_id[:12])


def references(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield stores, and after ``@`` the snapshots of a store, as ``STORE@ID``; ``@ID`` is one of the other store."""
    place, mark, text = incomplete.partition(MARK)
    if not mark:
        yield from stores(ctx, incomplete)
        return
    named = place or str(ctx.params.get("source") or ctx.params.get("first") or "").partition(MARK)[0]
    if named:
        for item in _snapshots(_opened(ctx, named), text):
            yield CompletionItem(f"{place}{MARK}{item.value}", help=item.help)


def _snapshots(store: SnapshotStore, text: str) -> Iterator[CompletionItem]:
    known = _by_name(store)
    for name, snapshot_id in known.items():
        if f"{name}{MARK}".startswith(text):
            yield CompletionItem(f"{name}{MARK}", help=snapshot_id[:12])
    if LATEST.startswith(text):
        yield CompletionItem(LATEST, help="the newest snapshot")
    ids = _ids(store, text)
    short = short_ids(ids)
    names_of: dict[str, list[Name]] = {}
    for name, snapshot_id in known.items():
        names_of.setdefault(snapshot_id, []).append(name)
    for snapshot_id in ids:
        named = names_of.get(snapshot_id, [])
        value = short[snapshot_id] if len(text) <= len(short[snapshot_id]) else snapshot_id
        yield CompletionItem(value, help=", ".join(named) or "snapshot")


def _ids(store: SnapshotStore, text: str) -> Sequence[SnapshotId]:
    """Return the ids that begin with *text*, none if there are too many."""
    if not text:
        found: Sequence[SnapshotId] = list(islice(store.manifest_ids(), MOST_SNAPSHOTS + 1))
    elif _is_start(text):
        found = store.find_snapshots(text, MOST_SNAPSHOTS + 1)
    else:
        return ()
    return found if len(found) <= MOST_SNAPSHOTS else ()


def _by_name(store: SnapshotStore) -> dict[Name, str]:
    """Return the names of *store*, each with the id of its snapshot, "" if there are too many to read."""
    found = store.names.names()
    if len(found) > _MOST_READ:
        return dict.fromkeys(found, "")
    read = {name: one.record for name, one in store.names.listed().items()} if found else {}
    return {name: record.snapshot_id if record is not None else "" for name, record in read.items()}


def store_of(ctx: click.Context, *parameters: str) -> SnapshotStore | None:
    """Return the store that the first of *parameters* with a value names, None if none has one."""
    for parameter in parameters:
        text = ctx.params.get(parameter)
        if text:
            return _opened(ctx, str(text))
    return None


def _opened(ctx: click.Context, text: str) -> SnapshotStore:
    settings = settings_of(ctx)
    apply_to_directories(settings)
    url = parse_url(named_url(settings, text)).with_defaults(**store_options("from"))
    return open_store(url, None, Right.READ, access=access_policy(settings, "completion"), create=False)
