"""Whether an object is intact: what one reading, two readings and no answer mean."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError, StoreFault, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.runtime.oversize import LARGEST_BYTES
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import OpenReader
from tests.faults.backends import Around, FlipsLastByte, Truncates, Unavailable
from tests.opening import open_store

DATA = b"an object"
ADDRESS = digest(DATA)


def holding(data: bytes = DATA) -> MemoryBackend:
    backend = MemoryBackend()
    backend.write(object_key(ADDRESS), data)
    return backend


@pytest.mark.parametrize("fault", [FlipsLastByte, Truncates])
def test_an_object_whose_bytes_are_wrong_in_one_reading_only_is_intact(
    fault: type[FlipsLastByte | Truncates],
) -> None:
    backend = fault(holding(), times=1)

    assert SnapshotStore(backend).check_object(ADDRESS) == len(DATA)
    assert backend.struck == 1


@pytest.mark.parametrize("fault", [FlipsLastByte, Truncates])
def test_an_object_whose_bytes_are_wrong_in_two_readings_is_corrupt(
    fault: type[FlipsLastByte | Truncates],
) -> None:
    backend = fault(holding())

    with pytest.raises(IntegrityError):
        SnapshotStore(backend).check_object(ADDRESS)
    assert backend.struck == 2


def test_a_store_that_gives_no_answer_has_neither_an_intact_nor_a_corrupt_object() -> None:
    for data in (DATA, b"wrong"):
        with pytest.raises(StoreUnavailable):
            SnapshotStore(Unavailable(holding(data))).check_object(ADDRESS)


def test_a_reading_that_fails_after_wrong_bytes_is_no_second_reading() -> None:
    class FailsLater(Around):
        opened = 0

        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            self.opened += 1
            if self.opened > 1:
                raise StoreUnavailable(self.label, key, "no answer")
            return self.inner.open(key)

    with pytest.raises(StoreUnavailable):
        SnapshotStore(FailsLater(holding(b"wrong"))).check_object(ADDRESS)


def test_bytes_after_the_end_of_an_object_are_found_whatever_size_is_expected(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put_object(ADDRESS, DATA)
    (tmp_path / object_key(ADDRESS)).write_bytes(DATA + b"!")

    for hint in range(len(DATA) + 2):
        with pytest.raises(IntegrityError, match=f"has {len(DATA) + 1} bytes"):
            store.check_object(ADDRESS, size_hint=hint)


def test_the_memory_of_a_check_does_not_grow_with_the_object(tmp_path: Path) -> None:
    data = os.urandom(1024 * 1024) * 64
    store = open_store(str(tmp_path))
    store.put_object(address := digest(data), data)
    length = len(data)
    del data
    tracemalloc.start()
    try:
        assert store.check_object(address, size_hint=length) == length
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK_BYTES
    finally:
        tracemalloc.stop()


def test_a_file_that_is_longer_than_any_object_is_not_read(tmp_path: Path) -> None:
    store = SnapshotStore(DirectoryBackend(str(tmp_path)))
    store.put_object(ADDRESS, DATA)
    try:
        os.truncate(tmp_path / object_key(ADDRESS), LARGEST_BYTES + 1)
    except OSError:
        pytest.skip("this file system has no files of that length")
    read: list[int] = []

    with pytest.raises(StoreFault, match="was not read"):
        store.check_object(ADDRESS, size_hint=len(DATA), on_bytes=read.append)
    assert read == []
