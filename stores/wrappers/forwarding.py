"""The one place where a backend around a backend hands its calls on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapferry.stores.backend import Backend, Listed
from snapferry.stores.streams import OpenReader, Upload


class ForwardingBackend(Backend):
    """
    A backend that does what *inner* does. A wrapper inherits from it and overrides what it changes.

    Features of *inner* (`stores.features`) are not forwarded: `feature_of` looks through wrappers.
    """

    inner: Backend

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.label = inner.label
        self.capabilities = inner.capabilities

    @property
    def may_wait(self) -> bool:
        return self.inner.may_wait

    def check(self, *, for_writing: bool) -> None:
        self.inner.check(for_writing=for_writing)

    def prepare(self) -> None:
        self.inner.prepare()

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        return self.inner.sizes(keys)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        return self.inner.open(key, size_hint=size_hint)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        return self.inner.fetch(key, size_hint)

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        return self.inner.upload(key, size_hint)

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        self.inner.commit_all(uploads)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        return self.inner.keys(prefix, start_after)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def flush(self) -> None:
        self.inner.flush()
