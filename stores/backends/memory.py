"""
A store in this process's memory: the reference implementation, and the fake for tests.

It passes the same conformance tests as every other backend, so the result of a test on it holds for all of them.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.errors import KeyMissing
from snapferry.stores.features import Locking
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.streams import OpenReader, Upload


class MemoryBackend(Backend, Locking):
    """Bytes under keys in a dictionary. *name* is the store's name in messages."""

    capabilities = Capabilities(concurrency=1, pages_listings=False)

    def __init__(self, name: str = "memory") -> None:
        self.label = f"memory://{name}"
        self._files: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, *, for_writing: bool) -> None:
        return None

    def size(self, key: str) -> int | None:
        data = self._files.get(key)
        return None if data is None else len(data)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        try:
            return io.BytesIO(self._files[key])
        except KeyError:
            raise KeyMissing(self.label, key, "nothing is filed here") from None

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > CHUNK_BYTES:
            return None
        with self.open(key) as reader:
            return reader.read(-1)

    def write(self, key: str, data: bytes) -> None:
        self._modified[key] = time.time()
        self._files[key] = bytes(data)

    def upload(self, key: str, size_hint: int) -> Upload:
        return _MemoryUpload(self, key)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        for key, data in sorted(self._files.copy().items()):
            if key.startswith(prefix) and key > start_after:
                yield Listed(key, len(data), self._modified.get(key, 0.0))

    @contextmanager
    def lock(self, folder: str) -> Iterator[bool]:
        with self._lock:
            yield True

    def delete(self, key: str) -> None:
        self._files.pop(key, None)
        self._modified.pop(key, None)


class _MemoryUpload(Upload):
    def __init__(self, backend: MemoryBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._buffer = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        self._buffer.write(chunk)

    def commit(self) -> None:
        self._backend.write(self._key, self._buffer.getvalue())

    def abort(self) -> None:
        self._buffer.close()
