"""The interface of a store: see the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.names.names import Names
from snapferry.stores.rate_limiter import RateLimiter
from snapferry.stores.requests import RequestAccounting
from snapferry.stores.streams import OpenReader, Upload

from .short_objects import ShortObjects
from .values import FileTarget, FileTree, ListedManifest, ListedObject, Memory, Published, Replaced, Survey


class StreamStore(ShortObjects, ABC):
    """
    Objects and manifests, filed under their addresses, in one place. Safe to share between threads.

    The verbs of the format take addresses and ids as texts and check their form before anything is asked. The streaming
    variants take an `Address` or a `SnapshotId`, which were checked where they entered.
    """

    # The place.

    @property
    @abstractmethod
    def label(self) -> str:
        """The URL of the place where the objects are, without credentials: `StoreError.store` of its errors."""

    @property
    def manifests_label(self) -> str:
        """The URL of the place where the manifests are; it differs from `label` if the store has two pools."""
        return self.label

    @property
    def labels(self) -> frozenset[str]:
        """All labels that this store's errors may have: two where objects and manifests are in different pools."""
        return frozenset({self.label, self.manifests_label})

    @property
    def concurrency(self) -> int:
        """How many objects one process should keep in flight."""
        return 1

    @property
    def may_wait(self) -> bool:
        """Whether the store may wait for another machine: then more objects in flight than that may help."""
        return True

    @abstractmethod
    def check(self, *, for_writing: bool = False) -> None:
        """Make sure that the store exists and answers. Changes nothing. Raises as `Backend.check` does."""

    def prepare(self) -> None:
        """Make the store ready for its first write. May be called again."""

    def unmounted(self, *, objects_only: bool = False) -> str:
        """
        Return the label of a pool that is a directory without a store in it, "" if there is none.

        Where a file system is not mounted, its directory is often there, and empty. With *objects_only*, only a
        missing folder of objects counts.
        """
        return ""

    def limit_rate(self, objects: RateLimiter, manifests: RateLimiter) -> None:
        """
        Keep to these rate limiters from now on: for objects, and for manifests if they are in another pool.

        Transfers in progress may continue without them. May be called again.
        """

    @abstractmethod
    def flush(self) -> None:
        """Return when every object written so far survives a power cut."""

    @property
    def accounting(self) -> RequestAccounting:
        """How many requests this store was sent, and how many its operations take."""
        return RequestAccounting()

    @property
    def confirmed(self) -> dict[str, int]:
        """How many objects were written here so far, by what confirmed that the store has the right bytes."""
        return {}

    # Objects.

    @abstractmethod
    def has_object(self, address: str) -> bool:
        """Return whether the object is there. Raises `InvalidAddress`."""

    def objects_needed(self, addresses: Iterable[str]) -> list[Address]:
        """
        Return those of *addresses* that are absent, in input order.

        Raises `InvalidAddress` for a text that is no address, before the first question is asked.
        """
        return self.survey(addresses).needed

    def objects_needed_of_many(
        self, addresses: Iterable[Address], memory: Memory, *, again: bool = False
    ) -> list[Address]:
        """As `objects_needed`, for one part of many addresses; *memory* and *again* as in `Memory.needed`."""
        return self.objects_needed(addresses)

    @abstractmethod
    def survey(self, addresses: Iterable[str]) -> Survey:
        """As `objects_needed`, and count how many other keys the store holds between the addresses."""

    @abstractmethod
    def lengths(self, addresses: Iterable[Address]) -> dict[Address, int | None]:
        """
        Return the length in bytes of each object, None for one that is absent. Asks as `objects_needed` does.

        A torn object has length 0.
        """

    @abstractmethod
    def absent(self, addresses: AddressSet) -> AddressSet:
        """As `objects_needed`, for any number of addresses in bounded memory."""

    @abstractmethod
    def list_objects(self) -> Iterator[ListedObject]:
        """
        Yield all objects that are filed here, sorted by address, any number of them.

        Tells nothing about their bytes. Raises `StoreNotFound`.
        """

    @abstractmethod
    def get_object(self, address: str) -> bytes:
        """
        Return the object's bytes, verified. For objects that fit in memory.

        Raises `InvalidAddress`, `ObjectMissing`, `IntegrityError`.
        """

    @abstractmethod
    def put_object(self, address: str, data: bytes) -> None:
        """
        File *data* under *address*. May be called again.

        Raises `InvalidAddress`, and `IntegrityError` if it does not hash to *address*; then nothing was written.
        """

    @abstractmethod
    def fetch_object(self, address: Address, size_hint: int) -> bytes | None:
        """
        Return the object, verified, if one call for all of it is faster than `open_object`.

        None where it is not, where the object is longer than *size_hint*, and where it is corrupt: reading to the end
        of `open_object` tells. Raises `ObjectMissing`.
        """

    @abstractmethod
    def open_object(self, address: Address, *, size_hint: int = 0) -> OpenReader:
        """
        Open the object for reading in a ``with`` block. The reader of the bytes must verify them.

        *size_hint* is the advisory size. Raises `KeyMissing`, also while it is read.
        """

    @abstractmethod
    def check_object(
        self, address: Address, *, size_hint: int = 0, on_bytes: Callable[[int], None] | None = None
    ) -> int:
        """
        Read all of the object, return its length in bytes if it is intact, and keep nothing of it.

        Memory does not grow with the object. *size_hint* is the advisory size. *on_bytes* is called with the length of
        each piece that was read. Raises `ObjectMissing`; `IntegrityError` if two readings gave wrong bytes, and for an
        object of length 0 that is not the empty one; `NotAnObject`; and what the store raises where it gives no answer.
        Changes nothing, and may be repeated.
        """

    def piece_bytes_of(self, size_hint: int) -> int:
        """Return in pieces of how many bytes an object is best read and written, 0 where it does not matter."""
        return 0

    @abstractmethod
    def copy_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int:
        """
        Copy one object from *source* to this store; return its length in bytes.

        Memory does not grow with the object. *size_hint* is the advisory size. *on_bytes* is called with the length of
        each piece that was read. Raises `ObjectMissing` and `IntegrityError` for the source, and what either store
        raises; nothing became visible then. May be called again.
        """

    @abstractmethod
    def stage_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> tuple[Upload, int]:
        """
        As `copy_object`, up to the moment before the object becomes visible here.

        Returns its upload and its length in bytes. The upload must be committed, by itself or by `commit_staged`, or
        aborted.
        """

    @abstractmethod
    def replace_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Replaced:
        """
        As `copy_object`, in the place of whatever is filed here under *address*, wrong bytes or no file at all.

        What is there is quarantined after the object was read and verified, and before it becomes visible. It is read
        again just before: bytes that are right are neither quarantined nor replaced. After an error, nothing has
        changed. Raises also `AccessDenied` and `StoreFault` where the store keeps the
        object from being quarantined or replaced. May be called again.
        """

    def commit_staged(self, uploads: Sequence[Upload]) -> None:
        """
        Make objects that were staged here visible.

        After an error some of them may be visible, each whole; the others are gone. They can be staged again.
        """
        for upload in uploads:
            upload.commit()

    @property
    def commits_together(self) -> int:
        """How many staged objects are worth committing at once. It may rise after a commit."""
        return 1

    def abort_unfinished(self, objects: Mapping[Address, int], *, dead_only: bool = False) -> None:
        """
        Remove what dead uploads of *objects* (address -> advisory size in bytes) left here without being visible.

        An upload that is paused cannot be told apart, so it is aborted too, unless *dead_only*. May be called again.
        """

    # Manifests.

    @abstractmethod
    def read_manifest(self, snapshot_id: str) -> Manifest:
        """
        Return the verified manifest, to be used in a ``with`` block. Memory does not grow with it.

        Raises `InvalidAddress`, `ManifestMissing`, `IntegrityError`.
        """

    @abstractmethod
    def get_manifest(self, snapshot_id: str) -> bytes:
        """
        Return the manifest's text, verified. For manifests that fit in memory.

        Raises `InvalidAddress`, `ManifestMissing`, `IntegrityError`, `ManifestSyntaxError`, `ManifestTooLarge`.
        """

    @abstractmethod
    def put_manifest(self, snapshot_id: str, manifest: bytes) -> None:
        """
        Publish a snapshot: check that every object of it is there, file its manifest, and read it back.

        Raises `IntegrityError` if the text does not hash to *snapshot_id*, and `ManifestIncomplete` if objects are
        absent. After these, and after any other error before the write, no manifest was written. May be called again.
        """

    @abstractmethod
    def publish(self, manifest: Manifest) -> None:
        """As `put_manifest`, for a manifest of any size. One that is here already and intact is left alone."""

    @abstractmethod
    def publish_all(self, source: StreamStore, snapshot_ids: Iterable[str]) -> dict[SnapshotId, Published]:
        """
        Publish each manifest of *source* whose objects are all here; return how each ended, in the given order.

        The existence of all objects is asked at once and from scratch. They are flushed before the first manifest is
        written, the manifests after the last one, and then each is read back. Memory grows with the number of distinct
        objects; manifests are opened one at a time.

        An error of one manifest stops no other. Raises `InvalidAddress` before anything is asked, and a `StoreError`
        where the question of existence or a flush fails: then every visible manifest has all its objects, and which
        manifests are visible is unknown. May be called again.
        """

    @abstractmethod
    def list_manifests(
        self, *, skip: Callable[[StoreError], None] | None = None
    ) -> dict[SnapshotId, ListedManifest]:
        """
        Return the manifests that are filed here, by snapshot id, sorted.

        With *skip*, a part that cannot be listed, because something else is in its place, does not end the listing:
        *skip* is called with the error. Whatever has the name of a manifest is listed then, also what is no file.

        Raises `StoreNotFound`, and `ManifestTooLarge` where there are more than `bounds().manifests`.
        """

    def list_manifest_ids(self) -> list[SnapshotId]:
        """Return the ids of all snapshots published here, sorted. Raises as `list_manifests` does."""
        return list(self.list_manifests())

    @abstractmethod
    def manifest_ids(self) -> Iterator[SnapshotId]:
        """Yield the ids of all snapshots published here, sorted, any number of them. Raises `StoreNotFound`."""

    @abstractmethod
    def find_snapshots(self, digits: str, most: int) -> Sequence[SnapshotId]:
        """Return the first *most* ids published here that begin with the hex *digits*, sorted; list little more."""

    @abstractmethod
    def newest_snapshot(self) -> SnapshotId | None:
        """
        Return the id of the manifest written last by the store's clock, the highest of several; None in an empty store.

        Lists all manifests, in constant memory. Raises `StoreNotFound`.
        """

    @property
    @abstractmethod
    def names(self) -> Names:
        """The names of snapshots that are kept here."""

    @abstractmethod
    def manifests_present(self, snapshot_ids: Iterable[str]) -> set[SnapshotId]:
        """
        Return those of *snapshot_ids* under which a manifest is filed here; an empty one does not count.

        Tells nothing about its bytes and its objects. Raises `InvalidAddress` before anything is asked.
        """

    @abstractmethod
    def delete_manifest(self, snapshot_id: str) -> None:
        """
        Withdraw a snapshot; its objects stay. Does nothing where it is not published.

        Raises `AccessDenied` where the store does not allow it; the snapshot is still published then. May be called
        again.
        """

    # Snapshots.

    @abstractmethod
    def push(self, manifest: Manifest, source: FileTree) -> None:
        """
        Bring a snapshot here from the tree of files that it lists, and publish it.

        Objects that are here are skipped. Each other one is read from one of its files and becomes visible if it
        hashes to its address. The manifest is written last. Raises `IntegrityError` with the file's path as its
        subject where a file no longer matches the manifest, `ObjectMissing` where it is not there, and what either
        side raises. Objects may have been written then, but no manifest. May be called again.
        """

    @abstractmethod
    def fetch_files(self, manifest: Manifest, dest: FileTarget) -> None:
        """
        Make *dest* what *manifest* lists: each file at its path, verified, with its permissions, and each directory.

        A file that has the right bytes is not read from the store; another one is replaced in one step. Directories get
        their permissions last. What the manifest does not list stays, unless *dest* deletes. Raises
        `ManifestSyntaxError` before anything is written for a manifest that no tree can be made of; `ObjectMissing`,
        `IntegrityError`, and what either side raises. Some files may have been written then, each whole; nothing was
        deleted. May be called again.
        """
