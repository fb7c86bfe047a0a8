"""
A backend that keeps to a pace, around one that knows of none.

What counts as a request: an object or a manifest that is opened, written, deleted or asked for, and a thousand keys
listed. A clone (`Upload.take`) counts as many bytes as a copy: all of them are read to be verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from snapferry.stores.base import Backend, Buffer, Listed, OpenReader, Reader, Upload
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.rate_limiter import MarkedPace, Pace, PacedReader
from snapferry.stores.requests import Requests

KEYS_IN_A_REQUEST: Final = 1000


def throttled(backend: Backend, pace: Pace) -> Backend:
    """Return *backend* kept to *pace*: itself, if it can do that alone, or one around it."""
    return backend if backend.keep_pace(pace) else Throttled(backend, pace)


class Throttled(Backend):
    """The backend *inner*, at the pace *pace*."""

    def __init__(self, inner: Backend, pace: Pace) -> None:
        self.inner = inner
        self.label = inner.label
        self.capabilities = inner.capabilities
        self._pace: Pace = MarkedPace(pace)

    def keep_pace(self, pace: Pace) -> bool:
        self._pace = MarkedPace(pace)
        return True

    def check(self, *, for_writing: bool) -> None:
        self.inner.check(for_writing=for_writing)

    def prepare(self) -> None:
        self.inner.prepare()

    def size(self, key: str) -> int | None:
        self._pace.requests(1)
        return self.inner.size(key)

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        if keys:
            self._pace.requests(len(keys))
        return self.inner.sizes(keys)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        self._pace.requests(1)
        return PacedReader(self.inner.open(key, size_hint=size_hint), self._pace, expected=size_hint)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > CHUNK_BYTES:
            return None
        paid = max(size_hint, 0)
        self._pace.bytes(paid)
        moved = 0
        try:
            data = self.inner.fetch(key, size_hint)
            moved = len(data or b"")
        finally:
            if moved < paid:
                self._pace.give_back(paid - moved)
        if data is None:
            return None
        # Only now is it known that this was a request: where there is no such way, nothing was asked.
        self._pace.requests(1)
        if moved > paid:
            self._pace.bytes(moved - paid)
        return data

    def write(self, key: str, data: bytes) -> None:
        self._pace.requests(1)
        self._pace.bytes(len(data))
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        self._pace.requests(1)
        return _ThrottledUpload(self.inner.upload(key, size_hint), self._pace)

    def stage(self, key: str, data: bytes) -> Upload:
        self._pace.requests(1)
        self._pace.bytes(len(data))
        return self.inner.stage(key, data)

    def abort_unfinished(self, key: str, size_hint: int) -> None:
        self.inner.abort_unfinished(key, size_hint)

    def piece_bytes(self, size_hint: int) -> int:
        return self.inner.piece_bytes(size_hint)

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        # What was staged before the pace was set comes as it is.
        self.inner.commit_all([one.inner if isinstance(one, _ThrottledUpload) else one for one in uploads])

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._pace.requests(1)
        for number, listed in enumerate(self.inner.keys(prefix, start_after)):
            if number and number % KEYS_IN_A_REQUEST == 0:
                self._pace.requests(1)
            yield listed

    def delete(self, key: str) -> None:
        self._pace.requests(1)
        self.inner.delete(key)

    def flush(self) -> None:
        self.inner.flush()

    # What the doctor asks is little, and must not wait.

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        return self.inner.probe(spaces, for_writing=for_writing)

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        return self.inner.probe_beside(source.inner if isinstance(source, Throttled) else source, key)

    def clock(self) -> tuple[float, float] | None:
        return self.inner.clock()

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def requests_to_read(self, size: int) -> Requests:
        return self.inner.requests_to_read(size)

    def requests_to_write(self, size: int) -> Requests:
        return self.inner.requests_to_write(size)

    @property
    def confirmed(self) -> dict[str, int]:
        return self.inner.confirmed

    @property
    def requests_sent(self) -> Requests:
        return self.inner.requests_sent


class _ThrottledUpload(Upload):
    def __init__(self, inner: Upload, pace: Pace) -> None:
        self.inner = inner
        self._pace = pace

    def write(self, chunk: bytes) -> None:
        self._pace.bytes(len(chunk))
        self.inner.write(chunk)

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        # A way of the store's own knows its own readers alone.
        paced = reader if isinstance(reader, PacedReader) else None

        def granted(piece: Buffer) -> None:
            if paced is not None:
                paced.came(len(piece))
            self._pace.bytes(len(piece))
            show(piece)
            if paced is not None:
                paced.pay_ahead(CHUNK_BYTES)

        if paced is None:
            return self.inner.take(reader, granted)
        paced.pay_ahead(CHUNK_BYTES)
        return self.inner.take(paced.inner, granted)

    def commit(self) -> None:
        self.inner.commit()

    def abort(self) -> None:
        self.inner.abort()
