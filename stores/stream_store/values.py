"""What the verbs of a store take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from snapferry.stores.address import Address
from snapferry.stores.backend import Backend
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.manifest.tree_lines import TreeColumns
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


class Memory(Protocol):
    """Answers which objects a store lacks from what it learnt before, and asks for the rest. Answers may be old."""

    def needed(self, backend: Backend, wanted: Sequence[Address], *, again: bool = False) -> list[Address]:
        """
        Return those of *wanted* that *backend* lacks, in their order. Raises what *backend* raises.

        With *again*, somebody may have written them since, so *backend* is asked for those that were absent.
        """

    def add(self, addresses: Iterable[Address]) -> None:
        """Record that the objects at *addresses* are there."""


class Published(NamedTuple):
    """
    How the publishing of one manifest ended: it is published if *missing* is empty and *error* is None.

    *missing* are the addresses of its objects that are absent, a bounded number of them; the manifest was not written
    then. *error* concerns this manifest alone. After an error of the write or of what follows it, the manifest may be
    there. *written*: the store had no such manifest, or a corrupt one. *quarantined* is the key under which it keeps
    the corrupt one, "" if there was none.
    """

    missing: tuple[Address, ...] = ()
    error: StoreError | None = None
    quarantined: str = ""
    written: bool = False


class Replaced(NamedTuple):
    """
    How one object was replaced.

    *length* is in bytes. *quarantined* is the key under which the store keeps what was there, "" if there was nothing.
    *was_right*: another program had replaced it already, so its bytes were right, and nothing was done.
    """

    length: int
    quarantined: str
    was_right: bool = False


class Settled(NamedTuple):
    """
    How a tree ended: *wrong* are files that are missing or have other permissions, and if there are none, the tree has
    ended, and *removed* files and directories were not in the snapshot.
    """

    wrong: tuple[TreeEntry, ...]
    removed: int = 0


class FileTree(Protocol):
    """A tree of files by their paths, relative and beginning with ``./``, as `backends.directory` offers it."""

    label: str

    def open(self, path: str, /, *, size_hint: int = 0) -> OpenReader:
        """Open the file at *path*. Raises `KeyMissing`."""


class FileTarget(Protocol):
    """
    A tree of files that becomes what a snapshot lists, as `backends.tree.writing.target` offers it.

    *linked*: files must share their bytes with the store. Methods raise `StoreError`.
    """

    label: str
    linked: bool

    @property
    def may_wait(self) -> bool:
        """As `StreamStore.may_wait`."""

    def prepare(self, entries: Iterable[TreeEntry], /) -> None:
        """Make the root where it is missing; refuse *entries* of which two would be one file."""

    def is_right(self, file: TreeEntry, /) -> bool:
        """Return whether *file* is there with its bytes, which are read. Then set its permissions where they differ."""

    def are_right(self, files: Iterable[TreeEntry], /) -> Iterator[bool]:
        """Yield `is_right` of each of *files*."""

    def upload(self, file: TreeEntry, /) -> Upload:
        """Begin to write *file*, and make the directories above it."""

    def upload_many(self, files: Sequence[TreeEntry], data: Sequence[bytes], /) -> list[Upload]:
        """
        Begin to write each of the short *files*, write its *data*, and finish it.

        Fewer uploads than files are returned where one failed: `upload` of the next file then gives the error.
        """

    def duplicate(self, upload: Upload, file: TreeEntry, /) -> Upload:
        """Write *file* with the bytes of *upload*, another file of this tree that is complete and not committed."""

    def commit_all(self, uploads: Sequence[Upload], /) -> None:
        """Commit *uploads* of this tree, to which everything was written."""

    def settle(self, lines: Callable[[], Iterable[TreeColumns]], /, most: int) -> Settled:
        """
        Make missing directories, and check that each file among *lines* is there with its permissions. Reads no bytes.

        Then delete other files if asked, and set permissions of directories, unless a file is not as listed; the result
        has the first *most* of these. *lines* is called for each pass.
        """

    def flush(self) -> None:
        """Return when the names of all files that were committed survive a power cut."""

    def free_bytes(self) -> int | None:
        """Return how many bytes may still be written, None if that is unknown."""
