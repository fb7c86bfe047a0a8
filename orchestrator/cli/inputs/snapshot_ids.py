"""The snapshots that --id, --ids-from and --all choose, and those of arguments: by id, its first digits, or a name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import BinaryIO, Final

from snapferry.orchestrator.cli.exit_codes import fail, usage
from snapferry.stores.access import TRUSTED, Right
from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import (
    AmbiguousId,
    InvalidAddress,
    InvalidName,
    InvalidStoreURL,
    ManifestMissing,
    NameMissing,
    StoreError,
)
from snapferry.stores.names.lookup import find_snapshot, full_id
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.printable import subject
from snapferry.workers.messages import MOST_SNAPSHOTS, StoreRef

# A longer line is not an id, and is not read to its end.
LONGEST_LINE: Final = 4096


def chosen_ids(
    snapshot_ids: Sequence[str],
    ids_from: str | None,
    *,
    everything: bool,
    allow_empty_source: bool,
    store: StoreRef,
) -> list[SnapshotId] | None:
    """
    Return the ids of the snapshots of *store* that are chosen, None for all; an error in them ends the command.

    *store* is asked only for ids that are not given in full.
    """
    if everything:
        if snapshot_ids or ids_from is not None:
            usage("--all cannot be combined with --id or --ids-from")
        return None
    if allow_empty_source:
        usage("--allow-empty-source requires --all")
    if not snapshot_ids and ids_from is None:
        usage("no snapshots are chosen. Use --id, --ids-from or --all.")
    opened = opening(store)
    # Each id with the line that has it, 0 for --id.
    found: dict[SnapshotId, int] = {}
    for text in snapshot_ids:
        snapshot_id = snapshot_of(opened, text, "--id")
        if snapshot_id in found:
            usage(f"--id: {snapshot_id} is given twice")
        found[snapshot_id] = 0
    if ids_from is None:
        return list(found)
    for number, text in _lines(ids_from):
        place = f"--ids-from {subject(ids_from)}, line {number}"
        snapshot_id = snapshot_of(opened, text, place)
        if snapshot_id in found:
            first = f"line {found[snapshot_id]}" if found[snapshot_id] else "--id"
            usage(f"{place}: {snapshot_id} repeats {first}")
        found[snapshot_id] = number
        if len(found) > MOST_SNAPSHOTS:
            usage(
                f"{place}: a job has at most {MOST_SNAPSHOTS:,} snapshots that are named one by one. Use several"
                " commands, or --all."
            )
    if not found:
        usage(f"--ids-from {subject(ids_from)}: no snapshot id in the file")
    return list(found)


def snapshot_of(store: StreamStore | Callable[[], StreamStore], text: str, place: str = "") -> SnapshotId:
    """
    Return the id of the snapshot of *store* that *text* means: see `find_snapshot`. An error in it ends the command.

    *store* may be a function that opens the store: it is called unless *text* is a full id. *place* is the option or
    the line of *text* for messages.
    """
    before = f"{place}: " if place else ""
    try:
        found = full_id(text)
        if found is not None:
            return found
        return find_snapshot(store() if callable(store) else store, text)
    except (InvalidAddress, InvalidName, InvalidStoreURL, AmbiguousId, ManifestMissing, NameMissing) as error:
        usage(f"{before}{error}")
    except StoreError as error:
        fail(f"{before}cannot look up the snapshot {text}: {type(error).__name__}: {error}")


def opening(store: StoreRef) -> Callable[[], StreamStore]:
    """Return a function for `snapshot_of` that opens *store*, once, to look up snapshots."""
    return cache(partial(_open, store))


def _open(store: StoreRef) -> StreamStore:
    return open_store(store.parsed, store.parsed_objects, Right.READ, access=TRUSTED, create=False)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the file at *path* with their numbers, without comments and empty lines."""
    try:
        if path == "-":
            yield from _numbered(sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                yield from _numbered(file)
    except OSError as error:
        usage(f"--ids-from {subject(path)}: {error.strerror or error}")


def _numbered(file: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        text = line.strip().decode(errors="backslashreplace")
        if text and not text.startswith("#"):
            yield number, text
