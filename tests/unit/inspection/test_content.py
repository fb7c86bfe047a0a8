"""One object, verified before it is used."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Self

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, Address, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError, ObjectMissing, StoreFault
from snapferry.stores.hashing import digest
from snapferry.stores.inspection import content
from snapferry.stores.inspection.content import streamed, verified
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import OpenReader

from .support import A, file_wrong, put, store_of

DATA = b"some bytes\0" * 100_000


@pytest.fixture(params=["memory", "disk"], autouse=True)
def _room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MEMORY_BYTES", 32 << 20 if request.param == "memory" else 10)
    return


def whole(store: SnapshotStore, address: Address, size_hint: int = 1) -> bytes:
    with verified(store, address, size_hint) as pieces:
        return b"".join(pieces)


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("size_hint", [0, 1, 10_000_000])
def test_an_object_is_read_whole_whatever_its_advisory_size(data: bytes, size_hint: int) -> None:
    store = store_of()
    address = put(store, data)
    parts: list[bytes] = []
    streamed(store, address, size_hint, parts.append)

    assert whole(store, address, size_hint) == data == b"".join(parts)


@pytest.mark.parametrize("wrong", [b"", DATA[:-1], DATA + b"x", b"other"])
def test_no_byte_of_a_corrupt_object_is_used(wrong: bytes) -> None:
    store = store_of()
    file_wrong(store, digest(DATA), wrong)

    with pytest.raises(IntegrityError, match=digest(DATA)):
        whole(store, digest(DATA))


def test_a_stream_of_a_corrupt_object_ends_with_an_error() -> None:
    store = store_of()
    file_wrong(store, digest(DATA), DATA[:-1])
    parts: list[bytes] = []

    with pytest.raises(IntegrityError, match="already passed on"):
        streamed(store, digest(DATA), 1, parts.append)
    assert b"".join(parts) == DATA[:-1]


def test_a_missing_object_is_missing() -> None:
    for use in (lambda: whole(store_of(), Address(A)), lambda: streamed(store_of(), Address(A), 1, len)):
        with pytest.raises(ObjectMissing):
            use()


class Once(MemoryBackend):
    """Returns wrong bytes the first time."""

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        opened = super().open(key, size_hint=size_hint)
        if self.__dict__.setdefault("wrong", True):
            self.wrong = False
            return Reader(b"wrong")
        return opened


class Reader(io.BytesIO):
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


def test_wrong_bytes_are_read_again() -> None:
    store = SnapshotStore(Once())
    store.objects.write(object_key(digest(DATA)), DATA)

    assert whole(store, digest(DATA)) == DATA


def test_an_object_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(content, "MEMORY_BYTES", 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    store = store_of()
    put(store, DATA)

    class Announced(Reader):
        length = len(DATA)

    monkeypatch.setattr(store.objects, "open", lambda *_, **__: Announced(DATA))
    with pytest.raises(StoreFault, match="--stream"):
        whole(store, digest(DATA))


def test_a_write_that_fails_passes_unchanged() -> None:
    store = store_of()
    address = put(store, DATA)

    def write(piece: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        streamed(store, address, 1, write)


def test_the_empty_object_is_an_object() -> None:
    store = store_of()
    put(store, b"")

    assert whole(store, EMPTY_ADDRESS) == b""
