"""Files of a tree as objects, once their digests are known: what a store copies them from."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from snapferry.stores.address import OBJECTS, Address, address_of
from snapferry.stores.backend import Backend
from snapferry.stores.errors import KeyMissing, StoreFault
from snapferry.stores.features import feature_of
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import OpenReader

from .backend import TreeBackend
from .only_reads import OnlyReads


def tree_of(store: StreamStore, *, follow: bool) -> Backend:
    """
    Return the files of *store*, which was opened from the URL of a tree, within the limits that it keeps to.

    With *follow*, links are followed. Raises `StoreFault` for a store that is not a tree.
    """
    tree = feature_of(store.objects, TreeBackend) if isinstance(store, SnapshotStore) else None
    if tree is None:
        raise StoreFault(store.label, "", "is a store, not a directory tree; its URL begins with tree://")
    tree.follow = follow
    assert isinstance(store, SnapshotStore)
    return store.objects


class FileObjects(OnlyReads):
    """
    The objects that are the files of *tree* at *paths*: address -> path.

    *kept* has the bytes of some of them. The others are read from their files, so their bytes may have changed.
    """

    refusal = "the files of a tree can only be read"

    def __init__(self, tree: Backend, paths: Mapping[Address, str], kept: Mapping[Address, bytes]) -> None:
        self.label = tree.label
        self.capabilities = tree.capabilities
        self._tree = tree
        self._paths = paths
        self._kept = kept

    def check(self, *, for_writing: bool) -> None:
        self._tree.check(for_writing=for_writing)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        address = address_of(key, OBJECTS)
        return None if address is None else self._kept.get(address)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        if (data := self.fetch(key, size_hint)) is not None:
            return _KeptReader(data)
        address = address_of(key, OBJECTS)
        path = None if address is None else self._paths.get(address)
        if path is None:
            raise KeyMissing(self.label, key, "is not among the files of this batch")
        return self._tree.open(path, size_hint=size_hint)


class _KeptReader:
    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = memoryview(data)

    def read(self, size: int, /) -> bytes:
        chunk, self._data = self._data[:size], self._data[size:]
        return bytes(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
