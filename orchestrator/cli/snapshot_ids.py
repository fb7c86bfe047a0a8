"""Which snapshots are meant: --id, --ids-from and --all."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from .exit_codes import usage

# A line that is longer is no id, and is not read to its end.
LONGEST_LINE = 4096


def chosen_ids(
    snapshot_ids: Sequence[str], ids_from: str | None, *, everything: bool, allow_empty_source: bool
) -> list[str] | None:
    """Return the ids of the snapshots to copy, None for all. Ids that cannot be used end the command."""
    from snapferry.stores.address import parse_address
    from snapferry.stores.errors import InvalidAddress

    if everything:
        if snapshot_ids or ids_from is not None:
            usage("--all is all snapshots: give it without --id and --ids-from")
        return None
    if allow_empty_source:
        usage("--allow-empty-source goes with --all")
    if not snapshot_ids and ids_from is None:
        usage("which snapshots? Give --id, --ids-from or --all.")
    found: dict[str, int] = {}
    for text in snapshot_ids:
        try:
            snapshot_id = parse_address(text)
        except InvalidAddress as error:
            usage(f"--id: {error}")
        if snapshot_id in found:
            usage(f"{snapshot_id} is given twice by --id")
        found[snapshot_id] = 0
    if ids_from is None:
        return list(found)
    for number, text in _lines(ids_from):
        try:
            snapshot_id = parse_address(text)
        except InvalidAddress as error:
            usage(f"--ids-from {ids_from}, line {number}: {error}")
        if snapshot_id in found:
            first = found[snapshot_id]
            before = f"line {first}" if first else "--id"
            usage(f"--ids-from {ids_from}, line {number}: {snapshot_id} is given twice, by {before} as well")
        found[snapshot_id] = number
    if not found:
        usage(f"--ids-from {ids_from}: it names no snapshot")
    return list(found)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the file at *path* that say something, with their numbers."""
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
