"""
A store of tens of millions of objects that takes no room: for measuring what stands around the copying.

    sim:///folder/source     every object of a made-up snapshot; its manifest is a real file
    sim:///folder/copy       a byte for each of these objects: is it here?

Object number N has the content ``object N\\n`` and is filed under the real digest of it, so everything that
snapferry hashes, asks, lists, writes and reads back is what it would be with any other store; only the bytes at
rest are not kept but made again. An index of all digests, sorted, is shared by all processes through a mapped file.

``python -m benchmarks.simulated ARGUMENTS`` is ``snapferry ARGUMENTS`` that knows the scheme.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from blake3 import blake3

from snapferry.stores.address import MANIFESTS, OBJECTS, Address, object_key
from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.errors import KeyMissing, StoreFault
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.urls import Opening, StoreKind, StoreURL
from snapferry.stores.urls import register as register_kind

SCHEME: Final = "sim"

# If it is set, an orchestrator queues no batch before it has read all manifests.
WHOLE_PLAN: Final = "BENCHMARK_WHOLE_PLAN"

_DIGEST_BYTES: Final = 32
_PREFIX_BITS: Final = 16


def register() -> None:
    """Let this process, and those that it forks, open ``sim://`` URLs."""
    register_kind(StoreKind(SCHEME, open=open_simulated, is_local=True))


def content(number: int) -> bytes:
    """Return the bytes of object *number*."""
    return b"object %d\n" % number


def make(folder: Path, objects: int) -> str:
    """Make a source and an empty copy of *objects* objects in *folder*; return the snapshot's id."""
    return make_many(folder, 1, objects)[0]


def make_many(folder: Path, snapshots: int, objects: int) -> list[str]:
    """As `make`, for *snapshots* snapshots of *objects* objects each, which share none; return their ids."""
    import numpy as np

    digests = bytearray()
    (folder / "source").mkdir(parents=True)
    ids = [
        _write_manifest(folder / "source", range(at * objects, (at + 1) * objects), digests)
        for at in range(snapshots)
    ]
    every = np.frombuffer(digests, "S32")
    order = np.argsort(every, kind="stable")
    every[order].tofile(folder / "index")
    order.astype("u4").tofile(folder / "numbers")
    heads = np.frombuffer(digests, ">u8")[:: _DIGEST_BYTES // 8] >> np.uint64(64 - _PREFIX_BITS)
    counts = np.bincount(heads.astype(np.int64), minlength=1 << _PREFIX_BITS)
    np.concatenate([[0], np.cumsum(counts)]).astype("u4").tofile(folder / "starts")
    (folder / "copy").mkdir()
    with (folder / "copy" / "held").open("wb") as held:
        held.truncate(snapshots * objects)
    return ids


def _write_manifest(source: Path, numbers: range, digests: bytearray) -> str:
    """Write the manifest of objects, and append their digests to *digests*; return its id."""
    hasher = blake3()
    text = source / "manifest"
    with text.open("wb") as manifest:
        for first in range(numbers.start, numbers.stop, 100_000):
            lines = bytearray()
            for number in range(first, min(first + 100_000, numbers.stop)):
                data = content(number)
                digest = blake3(data)
                digests += digest.digest()
                lines += b"F 644 %s %d ./%03d/%09d\n" % (
                    digest.hexdigest().encode(),
                    len(data),
                    number // 1_000_000,
                    number,
                )
            hasher.update(lines)
            manifest.write(lines)
    snapshot = hasher.hexdigest()
    target = source / MANIFESTS / snapshot[:3] / snapshot[3:6] / snapshot[6:9]
    target.mkdir(parents=True)
    text.rename(target / snapshot[9:])
    return snapshot


class _Index:
    """All objects by their digests: the place of each in order, and its number. Maps files, holds nothing itself."""

    def __init__(self, folder: Path) -> None:
        self.digests = _mapped(folder / "index")
        self._numbers = memoryview(_mapped(folder / "numbers")).cast("I")
        self._starts = array("I", (folder / "starts").read_bytes())

    def place(self, key: str) -> int | None:
        """Return the place of the object with *key*, None if there is no such object."""
        # As quick as can be: what this store takes is in every measured figure.
        digest = bytes.fromhex(key[len(OBJECTS) :].replace("/", ""))
        head = int.from_bytes(digest[: _PREFIX_BITS // 8])
        begin, end = _DIGEST_BYTES * self._starts[head], _DIGEST_BYTES * self._starts[head + 1]
        while (found := self.digests.find(digest, begin, end)) >= 0:
            if found % _DIGEST_BYTES == 0:
                return found // _DIGEST_BYTES
            begin = found + 1
        return None

    def place_behind(self, key: str) -> int:
        """Return the first place whose object's key sorts behind *key*, which begins like an object's."""
        digits = key[len(OBJECTS) :].replace("/", "")
        low, high = 0, len(self._numbers)
        while low < high:
            middle = (low + high) // 2
            if self.address(middle) <= digits:
                low = middle + 1
            else:
                high = middle
        return low

    def address(self, place: int) -> Address:
        return Address(self.digests[_DIGEST_BYTES * place : _DIGEST_BYTES * (place + 1)].hex())

    def data(self, place: int) -> bytes:
        return content(self._numbers[place])


def _mapped(path: Path, *, write: bool = False) -> mmap.mmap:
    with path.open("r+b" if write else "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)


@lru_cache(maxsize=4)
def _index(folder: str, process: int) -> _Index:
    return _Index(Path(folder))


class SimulatedBackend(Backend):
    """Objects that are made up, manifests that are files. Its listings are paged, as those of S3."""

    capabilities = Capabilities(concurrency=1, pages_listings=True)

    def __init__(self, root: str) -> None:
        self.label = f"{SCHEME}://{root}"
        self._files = DirectoryBackend(root)
        self._index = _index(os.path.dirname(root), os.getpid())
        held = Path(root, "held")
        self._held = _mapped(held, write=True) if held.exists() else None

    def check(self, *, for_writing: bool) -> None:
        self._files.check(for_writing=for_writing)

    def _place(self, key: str) -> int | None:
        place = self._index.place(key)
        return place if place is not None and (self._held is None or self._held[place]) else None

    def size(self, key: str) -> int | None:
        if not key.startswith(OBJECTS):
            return self._files.size(key)
        place = self._place(key)
        return None if place is None else len(self._index.data(place))

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        if not key.startswith(OBJECTS):
            return self._files.open(key)
        return io.BytesIO(self._data(key))

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        return self._data(key) if key.startswith(OBJECTS) else None

    def _data(self, key: str) -> bytes:
        place = self._place(key)
        if place is None:
            raise KeyMissing(self.label, key, "nothing is filed here")
        return self._index.data(place)

    def write(self, key: str, data: bytes) -> None:
        if not key.startswith(OBJECTS):
            self._files.write(key, data)
            return
        place = self._index.place(key)
        if place is None or self._held is None:
            raise StoreFault(self.label, key, "is no object of the simulation")
        self._held[place] = 1

    def upload(self, key: str, size_hint: int) -> Upload:
        if not key.startswith(OBJECTS):
            return self._files.upload(key, size_hint)
        return _SimulatedUpload(self, key)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        if prefix != OBJECTS:
            yield from self._files.keys(prefix, start_after)
            return
        index, held = self._index, self._held
        place = index.place_behind(start_after) if start_after else 0
        end = len(index.digests) // _DIGEST_BYTES
        while place < end:
            if held is not None:
                place = held.find(b"\x01", place)
                if place < 0:
                    return
            yield Listed(object_key(index.address(place)), len(index.data(place)), 0.0)
            place += 1

    def delete(self, key: str) -> None:
        self._files.delete(key)


class _SimulatedUpload(Upload):
    def __init__(self, backend: SimulatedBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._data = b""

    def write(self, chunk: bytes) -> None:
        self._data += chunk

    def commit(self) -> None:
        self._backend.write(self._key, self._data)

    def abort(self) -> None:
        self._data = b""


def open_simulated(url: StoreURL, opening: Opening) -> Backend:
    """Return the backend for a ``sim://`` URL."""
    return SimulatedBackend(url.location)


if __name__ == "__main__":
    register()
    # This module is another one under its own name, by which the workers find it.
    sys.modules["benchmarks.simulated"] = sys.modules["__main__"]
    from snapferry.orchestrator.cli import main

    if os.environ.get(WHOLE_PLAN):
        from snapferry.orchestrator.driving.steps import window

        window.GROW_S = float("inf")  # type: ignore[misc]
    main()
