"""What the verbs of a store take and return."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.streams import OpenReader, Upload


class ListedManifest(NamedTuple):
    """A manifest in a listing. *length* is in bytes, *modified* in seconds since the epoch by the store's clock."""

    length: int
    modified: float


class ListedObject(NamedTuple):
    """An object in a listing. *length* is in bytes, *modified* in seconds since the epoch by the store's clock."""

    address: Address
    length: int
    modified: float


class Survey(NamedTuple):
    """
    Which addresses a store lacks.

    *needed* are the addresses that are absent, in the order in which they were asked for. *keys_between* is how many
    keys of the store lie between the first and the last of those asked for, in byte order: counted where listings
    answered everything, estimated where they were given up, None where there was no listing.
    """

    needed: list[Address]
    keys_between: int | None


class Published(NamedTuple):
    """
    How the publishing of one manifest ended: it is published if *missing* is empty and *error* is None.

    *missing* are the addresses of its objects that are absent, a bounded number of them; the manifest was not written
    then. *error* concerns this manifest alone. After an error of the write or of what follows it, the manifest may be
    there. *quarantined* is the key under which the store keeps a corrupt manifest that this one replaced, "" if there
    was none.
    """

    missing: tuple[Address, ...] = ()
    error: StoreError | None = None
    quarantined: str = ""


class Replaced(NamedTuple):
    """
    How one object was replaced.

    *length* is in bytes. *quarantined* is the key under which the store keeps what was there, "" if there was nothing.
    """

    length: int
    quarantined: str


class FileTree(Protocol):
    """A tree of files by their paths, relative and beginning with ``./``, as `backends.directory` offers it."""

    label: str

    def open(self, path: str, /, *, size_hint: int = 0) -> OpenReader:
        """Open the file at *path*. Raises `KeyMissing`."""

    def upload(self, path: str, size_hint: int, /) -> Upload:
        """Begin to write the file at *path*, and create the directories above it."""
