"""List the snapshots of a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, note
from snapferry.orchestrator.cli.inputs.opened_store import opened, parsed, reading
from snapferry.orchestrator.cli.output.activity import activity
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.reporting.store_documents import row_document
from snapferry.orchestrator.reporting.text.stores import (
    ROWS_HEAD,
    SHORTEST_ID,
    RowCounts,
    SnapshotRow,
    row_texts,
)
from snapferry.stores.access import shown
from snapferry.stores.inspection.reading import Unreadable, read_each
from snapferry.stores.inspection.sizes import count
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.names.lookup import short_ids
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.text.format import counted


def list_snapshots(store: str, long_rows: bool, exact: bool, as_json: bool, no_progress: bool) -> int:
    settings = read_settings(None)
    with reading():
        place = opened(settings, store)
        if not long_rows and not as_json:
            found = False
            for snapshot_id in place.manifest_ids():
                found = True
                click.echo(snapshot_id)
        else:
            rows = _rows(place, counted=long_rows, silent=no_progress)
            found = bool(rows)
            if as_json:
                click.echo(json.dumps([row_document(row) for row in rows], indent=2))
            elif rows:
                _print_rows(rows, exact=exact)
            unreadable = [row.error for row in rows if row.error is not None]
            for error in unreadable:
                note(f"{type(error).__name__}: {error}")
            if unreadable:
                return EXIT_FAILED
    if not found and not as_json:
        note(f"no snapshots in {shown(parsed(settings, store))}")
    return 0


def _rows(store: SnapshotStore, *, counted: bool, silent: bool) -> list[SnapshotRow]:
    """Return the snapshots of *store*, the newest one last; with *counted*, read their manifests."""
    listed = store.list_manifests()
    names = store.names.by_snapshot()
    rows = [
        SnapshotRow(each, found.modified, found.length, tuple(names.get(each, ())))
        for each, found in listed.items()
    ]
    if counted:
        rows = list(_counted_rows(store, rows, silent=silent))
    return sorted(rows, key=lambda row: (row.modified, row.id))


def _counted_rows(
    store: SnapshotStore, rows: Sequence[SnapshotRow], *, silent: bool
) -> Iterator[SnapshotRow]:
    with activity(silent=silent) as report:
        read = read_each(store, (row.id for row in rows), _counts)
        for number, (row, (_, found)) in enumerate(zip(rows, read, strict=True), 1):
            report(f"{counted(number, 'manifest', of=len(rows))} read")
            if isinstance(found, Unreadable):
                yield replace(row, error=found.error)
            else:
                yield replace(row, counted=found)


def _counts(manifest: Manifest) -> RowCounts:
    found = count(manifest)
    return RowCounts(found.files, found.logical_bytes, len(found.objects))


def _print_rows(rows: list[SnapshotRow], *, exact: bool) -> None:
    short = short_ids([row.id for row in rows], SHORTEST_ID)
    named = any(row.names for row in rows)
    print_table(
        ROWS_HEAD if named else ROWS_HEAD[:-1],
        (row_texts(row, short[row.id], exact=exact)[: None if named else -1] for row in rows),
        right=frozenset({"FILES", "BYTES"}),
        fold=frozenset({"NAMES"}),
    )
