"""
A name of a snapshot: its form, its key, and what is filed under it.

    .names/nightly   ->  "8b1f…\n", 64 digits, one line

A name is 1 to 64 lowercase letters, digits, ``.``, ``_`` and ``-`` that begin and end with a letter or digit. So it is
one part of a path, never ``..``, and differs from every other name also where file systems ignore case. A text of hex
digits alone could be the beginning of an id and is not a name; `LATEST` means the newest snapshot.

Below one name is one line: the snapshot's id, and after a space the *origin*, if a job carried the name from another
store. Nothing else is accepted, however it came there.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NewType

from snapferry.stores.address import ADDRESS_LENGTH, Key, SnapshotId
from snapferry.stores.errors import InvalidName
from snapferry.stores.text.printable import subject

Name = NewType("Name", str)
"""A name of a snapshot."""

NAMES: Final = ".names/"

LATEST: Final = "latest"

MARK: Final = "@"
"""Ends a name wherever a snapshot id is expected."""

LONGEST: Final = 64
LONGEST_RECORD: Final = 2 * ADDRESS_LENGTH + 2

_has_form = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?").fullmatch
_is_hex = re.compile(r"[0-9a-f]+").fullmatch
_is_record = re.compile(rb"([0-9a-f]{64})(?: ([0-9a-f]{64}))?\n").fullmatch


class NameRecord(NamedTuple):
    """
    What is filed under a name.

    *origin* is the digest of the store that a job carried the name from, "" if a person gave the name.
    """

    snapshot_id: SnapshotId
    origin: str = ""


def parse_name(text: str) -> Name:
    """Return *text* as a name. Raises `InvalidName`."""
    shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    if text.endswith("@") and is_name(text[:-1]):
        raise InvalidName("", shown, f"is not a name: leave out the @, as in {text[:-1]}")
    if not _has_form(text):
        raise InvalidName(
            "",
            subject(shown),
            f"is not a name: use 1 to {LONGEST} lowercase letters, digits, '.', '_' and '-' that begin and end with a"
            " letter or digit",
        )
    if text == LATEST:
        raise InvalidName("", shown, "is reserved: it means the newest snapshot of a store")
    if _is_hex(text):
        raise InvalidName(
            "",
            shown,
            "cannot be a name: it has hex digits (0-9, a-f) alone, so it could be the beginning of a snapshot id. Add"
            f" another letter, '.', '_' or '-', such as v-{text[:16]}",
        )
    return Name(text)


def is_name(text: str) -> bool:
    """Return whether *text* is a name."""
    return bool(_has_form(text)) and text != LATEST and not _is_hex(text)


def name_key(name: Name) -> Key:
    """Return the key of *name*."""
    return Key(NAMES + name)


def render_record(record: NameRecord) -> bytes:
    """Return the bytes that are filed under a name."""
    return f"{' '.join(filter(None, record))}\n".encode()


def parse_record(data: bytes) -> NameRecord | None:
    """Return the record that *data* is, None for anything else."""
    found = _is_record(data)
    if found is None:
        return None
    snapshot_id, origin = found.groups(b"")
    return NameRecord(SnapshotId(snapshot_id.decode()), origin.decode())  # type: ignore[arg-type]
