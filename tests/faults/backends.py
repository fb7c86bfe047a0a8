"""
Stores that fail, one fault each. Each *is* a backend around a backend.

A fault touches the keys that *strikes* says yes to, every time, or only for the
first *times* calls. `Faulty.struck` counts, so that a test can make sure that
its fault happened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from snapferry.stores.backend import Backend, Listed
from snapferry.stores.errors import AccessDenied, StoreUnavailable
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.wrappers.forwarding import ForwardingBackend

Strikes = Callable[[str], bool]


def every_key(key: str) -> bool:
    """Strike always."""
    return True


class Around(ForwardingBackend):
    """Does what the inner backend does, one verb at a time. Subclasses change one thing of it."""

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        return Backend.sizes(self, keys)  # through size, where a subclass may stand in the way

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        return None  # so that the caller opens, where a subclass may stand in the way

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        Backend.commit_all(self, uploads)  # the uploads may be a subclass's own


class Faulty(Around):
    """A backend with a fault that strikes some keys, for the first *times* calls or (None) for ever."""

    def __init__(self, inner: Backend, strikes: Strikes = every_key, times: int | None = None) -> None:
        super().__init__(inner)
        self._strikes = strikes
        self._times = times
        self._lock = threading.Lock()
        self.struck = 0

    def _strike(self, key: str) -> bool:
        with self._lock:
            if not self._strikes(key) or (self._times is not None and self.struck >= self._times):
                return False
            self.struck += 1
            return True


class FlipsLastByte(Faulty):
    """Gives back what was filed, but for the last bit: a disk or a wire that lies."""

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        reader = self.inner.open(key, size_hint=size_hint)
        if not self._strike(key):
            return reader
        return _Altered(reader, lambda data: data[:-1] + bytes([data[-1] ^ 1]) if data else data)


class Truncates(Faulty):
    """Gives back half of what was filed, and then the end: a connection that closes as if all were said."""

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        reader = self.inner.open(key, size_hint=size_hint)
        if not self._strike(key):
            return reader
        return _Altered(reader, lambda data: data[: len(data) // 2])


class Unavailable(Faulty):
    """Gives no answer, whatever it is asked or told."""

    def _fail(self, key: str) -> None:
        if self._strike(key):
            raise StoreUnavailable(self.label, key, "no answer (a test says so)")

    def size(self, key: str) -> int | None:
        self._fail(key)
        return self.inner.size(key)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        self._fail(key)
        return self.inner.open(key, size_hint=size_hint)

    def write(self, key: str, data: bytes) -> None:
        self._fail(key)
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        self._fail(key)
        return self.inner.upload(key, size_hint)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._fail(prefix)
        return self.inner.keys(prefix, start_after)

    def delete(self, key: str) -> None:
        self._fail(key)
        self.inner.delete(key)


class Forbids(Faulty):
    """Lets everyone look, and no one write or delete."""

    def _fail(self, key: str) -> None:
        if self._strike(key):
            raise AccessDenied(self.label, key, "no permission (a test says so)")

    def write(self, key: str, data: bytes) -> None:
        self._fail(key)
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        self._fail(key)
        return self.inner.upload(key, size_hint)

    def delete(self, key: str) -> None:
        self._fail(key)
        self.inner.delete(key)


class AltersWrites(Faulty):
    """Files other bytes than it was given, and says that all is well."""

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, data + b"!" if self._strike(key) else data)

    def upload(self, key: str, size_hint: int) -> Upload:
        upload = self.inner.upload(key, size_hint)
        if self._strike(key):
            upload.write(b"!")
        return upload


class LosesWrites(Faulty):
    """Says that bytes are filed, and drops them."""

    def write(self, key: str, data: bytes) -> None:
        if not self._strike(key):
            self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        return _NoUpload() if self._strike(key) else self.inner.upload(key, size_hint)


class DiesAfter(Around):
    """
    Lets *writes* writes pass and raises `Died` at every one after them, as if the process had ended there.

    `Died` is no `Exception`: nothing in the product may catch it and go on.
    """

    def __init__(self, inner: Backend, writes: int) -> None:
        super().__init__(inner)
        self._left = writes

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Died

    def write(self, key: str, data: bytes) -> None:
        self._count()
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        return _DyingUpload(self.inner.upload(key, size_hint), self._count)


class Died(BaseException):
    """The end of the process, as far as a test without processes can have it."""


class Remembers(Around):
    """Notes every call that changes the store, in order: ("write", key) or ("delete", key) or ("flush", "")."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: list[tuple[str, str]] = []

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, data)
        self.calls.append(("write", key))

    def upload(self, key: str, size_hint: int) -> Upload:
        return _DyingUpload(self.inner.upload(key, size_hint), lambda: self.calls.append(("write", key)))

    def delete(self, key: str) -> None:
        self.inner.delete(key)
        self.calls.append(("delete", key))

    def flush(self) -> None:
        self.inner.flush()
        self.calls.append(("flush", ""))


class _Altered:
    """A reader of other bytes than the inner one has; it reads that one to its end first."""

    def __init__(self, reader: OpenReader, alter: Callable[[bytes], bytes]) -> None:
        self._reader = reader
        self._alter = alter
        self._data: bytes | None = None

    def read(self, size: int, /) -> bytes:
        if self._data is None:
            parts = []
            while part := self._reader.read(1 << 20):
                parts.append(part)
            self._data = self._alter(b"".join(parts))
        chunk, self._data = self._data[:size], self._data[size:]
        return chunk

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._reader.__exit__(kind, error, trace)


class _NoUpload(Upload):
    def write(self, chunk: bytes) -> None:
        return None

    def commit(self) -> None:
        return None

    def abort(self) -> None:
        return None


class _DyingUpload(Upload):
    def __init__(self, inner: Upload, before_commit: Callable[[], None]) -> None:
        self._inner = inner
        self._before_commit = before_commit

    def write(self, chunk: bytes) -> None:
        self._inner.write(chunk)

    def commit(self) -> None:
        self._before_commit()
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()
