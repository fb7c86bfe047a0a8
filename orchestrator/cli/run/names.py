"""Name snapshots: the bodies of tag and untag."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import click

from snapferry.orchestrator.cli.exit_codes import note, usage
from snapferry.orchestrator.cli.inputs.opened_store import parsed, reading
from snapferry.orchestrator.cli.inputs.snapshot_ids import snapshot_of
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.reporting.store_documents import name_document
from snapferry.stores.access import TRUSTED, Right, shown
from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import StoreFault
from snapferry.stores.names.lookup import read_name
from snapferry.stores.names.name import Name, NameRecord, parse_name
from snapferry.stores.names.names import ListedName
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.urls import StoreURL

NONE: Final = "none"
"""As the value of --if-was: the name must not exist."""

NOT_ATOMIC: Final = (
    "this store cannot change a name on a condition: --if-was was checked just before, and another writer in between"
    " was not noticed"
)

HEAD: Final = ("NAME", "SNAPSHOT", "")


def tag(
    store: str, snapshot: str | None, name: str | None, if_was: str | None, deleted: str | None, as_json: bool
) -> int:
    if deleted is not None:
        if snapshot is not None:
            usage("--delete cannot be combined with ID and NAME")
        return untag(store, deleted, if_was, as_json)
    if snapshot is None:
        if if_was is not None:
            usage("--if-was requires ID and NAME")
        return _list(store, as_json=as_json)
    if name is None:
        usage("ID requires NAME: snapferry tag STORE ID NAME")
    with _opened(store, Right.READ, Right.WRITE) as (_, opened):
        valid = parse_name(name)
        record = NameRecord(snapshot_of(opened, snapshot))
        before, atomic = opened.names.write(valid, record, if_was=_condition(opened, if_was))
    if if_was is not None and not atomic:
        note(NOT_ATOMIC)
    if as_json:
        previous = before and before.snapshot_id
        click.echo(json.dumps({"name": valid, "snapshot": record.snapshot_id, "previous": previous}))
    elif before is not None and before.snapshot_id != record.snapshot_id:
        click.echo(f"{valid}@ is {record.snapshot_id} now; it was {before.snapshot_id}")
    else:
        click.echo(f"{valid}@ is {record.snapshot_id}")
    return 0


def untag(store: str, name: str, if_was: str | None, as_json: bool) -> int:
    with _opened(store, Right.READ, Right.DELETE) as (_, opened):
        valid = parse_name(name)
        condition = _condition(opened, if_was)
        if condition == "":
            usage(f"--if-was {NONE}: a name that does not exist cannot be removed")
        before = _snapshot_of_name(opened, valid)
        atomic = opened.names.delete(valid, if_was=condition)
    if if_was is not None and not atomic:
        note(NOT_ATOMIC)
    if as_json:
        click.echo(json.dumps({"name": valid, "snapshot": None, "previous": before}))
    else:
        click.echo(f"{valid}@ is removed{f'; it was {before}' if before else ''}")
    return 0


def _list(store: str, *, as_json: bool) -> int:
    with _opened(store, Right.READ) as (url, opened):
        found = opened.names.listed()
    if as_json:
        click.echo(json.dumps([name_document(one) for one in found.values()], indent=2))
    elif found:
        print_table(HEAD, map(_row, found.values()), right=frozenset(), fold=frozenset(HEAD[-1:]))
    else:
        note(f"no names in {shown(url)}")
    return 0


def _row(listed: ListedName) -> tuple[str, str, str]:
    if listed.record is None:
        return listed.name, "?", f"unreadable: {listed.error}"
    return (
        listed.name,
        listed.record.snapshot_id,
        "the snapshot is not in this store" if listed.dangling else "",
    )


def _snapshot_of_name(store: StreamStore, name: Name) -> SnapshotId | None:
    """Return the snapshot that has *name*, None if its record cannot be read. Raises `NameMissing`."""
    try:
        return read_name(store, name).snapshot_id
    except StoreFault:
        return None


def _condition(store: StreamStore, if_was: str | None) -> SnapshotId | Literal[""] | None:
    if if_was is None:
        return None
    return "" if if_was == NONE else snapshot_of(store, if_was, "--if-was")


@contextmanager
def _opened(store: str, *rights: Right) -> Iterator[tuple[StoreURL, StreamStore]]:
    """Open *store*, which must exist; an error of it in the block ends the command."""
    with reading():
        url = parsed(read_settings(None), store)
        yield url, open_store(url, None, *rights, access=TRUSTED, create=False)
