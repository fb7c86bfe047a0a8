"""The lines of a manifest as values, and the text that they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from snapferry.stores.address import SnapshotId
from snapferry.stores.hashing import digest

from .canonical import canonical


class Entry(NamedTuple):
    """One line of a manifest. *checksum* is 64 lowercase hex on F lines; *size* is in bytes and advisory."""

    type: str
    permissions: str
    checksum: str
    size: int
    path: str

    @classmethod
    def of(cls, fields: Sequence[bytes]) -> Self:
        """Return the entry with these five *fields*, which were checked."""
        kind, permissions, checksum, size, path = fields
        return cls(kind.decode(), permissions.decode(), checksum.decode(), int(size), path.decode())

    def render(self) -> str:
        """Return the line, without its end."""
        return f"{self.type} {self.permissions} {self.checksum} {self.size} {self.path}"


def render(entries: Iterable[Entry]) -> bytes:
    """Return the manifest that lists *entries*: sorted by the bytes of their paths."""
    # Entries with one path keep their order, as in `canonical`.
    ordered = sorted(entries, key=lambda entry: entry.path.encode())
    return b"\n".join(entry.render().encode() for entry in ordered) + b"\n"


def snapshot_id(text: bytes) -> SnapshotId:
    """Return the id of the snapshot that the manifest *text* lists."""
    return SnapshotId(digest(canonical(text)))
