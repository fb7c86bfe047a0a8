"""The snapshots that --id, --ids-from and --all choose."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.stores.address import SnapshotId, parse_snapshot_id
from snapferry.stores.errors import InvalidAddress

# A longer line is not an id, and is not read to its end.
LONGEST_LINE: Final = 4096


def chosen_ids(
    snapshot_ids: Sequence[str], ids_from: str | None, *, everything: bool, allow_empty_source: bool
) -> list[SnapshotId] | None:
    """Return the ids of the snapshots to copy, None for all; an error in them ends the command."""
    if everything:
        if snapshot_ids or ids_from is not None:
            usage("--all cannot be combined with --id or --ids-from")
        return None
    if allow_empty_source:
        usage("--allow-empty-source requires --all")
    if not snapshot_ids and ids_from is None:
        usage("no snapshots are chosen. Use --id, --ids-from or --all.")
    # Each id with the line that has it, 0 for --id.
    found: dict[SnapshotId, int] = {}
    for text in snapshot_ids:
        try:
            snapshot_id = parse_snapshot_id(text)
        except InvalidAddress as error:
            usage(f"--id: {error}")
        if snapshot_id in found:
            usage(f"--id: {snapshot_id} is given twice")
        found[snapshot_id] = 0
    if ids_from is None:
        return list(found)
    for number, text in _lines(ids_from):
        try:
            snapshot_id = parse_snapshot_id(text)
        except InvalidAddress as error:
            usage(f"--ids-from {ids_from}, line {number}: {error}")
        if snapshot_id in found:
            first = f"line {found[snapshot_id]}" if found[snapshot_id] else "--id"
            usage(f"--ids-from {ids_from}, line {number}: {snapshot_id} repeats {first}")
        found[snapshot_id] = number
    if not found:
        usage(f"--ids-from {ids_from}: no snapshot id in the file")
    return list(found)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the file at *path* with their numbers, without comments and empty lines."""
    try:
        if path == "-":
            yield from _numbered(sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                yield from _numbered(file)
    except OSError as error:
        usage(f"--ids-from {path}: {error.strerror or error}")


def _numbered(file: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
        text = line.strip().decode(errors="backslashreplace")
        if text and not text.startswith("#"):
            yield number, text
