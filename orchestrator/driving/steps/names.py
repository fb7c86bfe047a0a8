"""
Carry the names of snapshots along to the destination, and remove those that the source no longer has.

A name that a job writes has the *origin* of its source. Only names with this origin are moved and removed: a name that
a person gave at the destination, or that a job carried there from another store, stays. So a source, which may be
hostile, decides about no names but its own. Both steps may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from snapferry.stores.errors import ManifestMissing, NameChanged, StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.names.name import Name, NameRecord
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.limits.limit_store import store_id
from snapferry.workers.messages import StoreRef


class Carried(NamedTuple):
    """
    What became of the names of a source.

    *there* counts those that the destination has for the same snapshots. *kept* are those that somebody else gave to
    other snapshots of the destination. *unreadable* are those whose records cannot be read at the source, with the
    reasons. The others are of snapshots that the destination does not have.
    """

    there: int
    kept: list[Name]
    unreadable: dict[Name, StoreError]


def origin_of(source: StoreRef) -> str:
    """Return the origin of names that come from *source*: the same for every job with this source."""
    return digest(store_id(source.parsed).encode())


def carry_names(source: StreamStore, destination: StreamStore, origin: str) -> Carried:
    """
    Write each name of *source* to *destination*, if its snapshot is published there; return what became of them.

    A name that is right already is left alone, whoever gave it. Raises `StoreError`, and whatever stops the job; some
    names may be written then.
    """
    listed = source.names.listed()
    ids = {name: one.record.snapshot_id for name, one in listed.items() if one.record is not None}
    published = destination.manifests_present(set(ids.values())) if ids else set()
    present = destination.names.listed() if published else {}
    there, kept = 0, []
    for name, snapshot_id in ids.items():
        checkpoint()
        if snapshot_id not in published:
            continue
        record = present[name].record if name in present else None
        if record is not None and record.snapshot_id != snapshot_id and record.origin != origin:
            kept.append(name)
            continue
        if record is None or record.snapshot_id != snapshot_id:
            # What cannot be read is replaced, whatever it is.
            broken = record is None and name in present
            expected = None if broken else "" if record is None else record.snapshot_id
            try:
                destination.names.write(name, NameRecord(snapshot_id, origin), if_was=expected)
            except ManifestMissing:
                # Deleted since by somebody else.
                continue
            except NameChanged:
                kept.append(name)
                continue
        there += 1
    return Carried(there, kept, {name: one.error for name, one in listed.items() if one.error is not None})


def remove_names(
    source: StreamStore, destination: StreamStore, origin: str, record: Callable[[list[Name]], object]
) -> None:
    """
    Remove the names of *destination* that came from *origin* and that *source* does not have.

    Calls *record* with them before. Raises `StoreError`, and whatever stops the job; some may be removed then.
    """
    at_source = set(source.names.names())
    surplus = {
        name: one.record
        for name, one in destination.names.listed().items()
        if one.record is not None and one.record.origin == origin and name not in at_source
    }
    if surplus:
        record(list(surplus))
    for name, expected in surplus.items():
        checkpoint()
        # Somebody may have given the name to another snapshot since.
        if destination.names.find(name) == expected:
            with suppress(NameChanged):
                destination.names.delete(name, if_was=expected.snapshot_id)
