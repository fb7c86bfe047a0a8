"""A batch of objects that is verified where it is: what is found, and what is not."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.address import EMPTY_ADDRESS, Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import AccessDenied, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.wrappers.forwarding import ForwardingBackend
from snapferry.workers.copying.transfer import verify
from snapferry.workers.copying.transfer.verify import verify_batch
from snapferry.workers.outcome import BatchOutcome

BODIES = [b"", *(b"body %d" % number for number in range(40))]
SIZES = {digest(body): len(body) for body in BODIES}


class Progress:
    def __init__(self) -> None:
        self.objects = self.bytes = 0
        self.begun: list[list[Address]] = []

    def begin(self, needed: list[Address]) -> None:
        self.begun.append(needed)

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        self.objects += objects
        self.bytes += size_bytes


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SECOND_LOOK_S", 0.0)


def filled(bodies: Iterable[bytes] = BODIES) -> MemoryBackend:
    backend = MemoryBackend("m")
    for body in bodies:
        backend.write(object_key(digest(body)), body)
    return backend


def look(backend: Backend, sizes: Mapping[Address, int] = SIZES, **options: Any) -> BatchOutcome:
    store, progress = SnapshotStore(backend), Progress()
    outcome = verify_batch(store, store, sizes, progress, **options)
    assert progress.begun == [[]]
    assert (progress.objects, progress.bytes) == (len(sizes), sum(sizes.values()))
    assert outcome.present + len(outcome.failures) == len(sizes)
    assert outcome.copied == 0
    return outcome


def errors(outcome: BatchOutcome) -> dict[Address, str]:
    return {failure.address: failure.error for failure in outcome.failures}


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("fast", [False, True])
def test_intact_objects_are_intact(concurrency: int, fast: bool) -> None:
    outcome = look(filled(), concurrency=concurrency, fast=fast)

    assert errors(outcome) == {}
    assert outcome.bytes_copied == (0 if fast else sum(SIZES.values()))


@pytest.mark.parametrize("fast", [False, True])
def test_exactly_what_is_wrong_is_found(fast: bool) -> None:
    backend = filled()
    missing, truncated, empty, longer = (digest(body) for body in BODIES[1:5])
    backend.delete(object_key(missing))
    backend.write(object_key(truncated), b"body")
    backend.write(object_key(empty), b"")
    backend.write(object_key(longer), b"body 3 and more")

    assert errors(look(backend, fast=fast)) == {
        missing: "ObjectMissing",
        truncated: "IntegrityError",
        empty: "IntegrityError",
        longer: "IntegrityError",
    }


def test_a_flipped_bit_and_the_bytes_of_another_object_are_found_by_reading_alone() -> None:
    backend = filled()
    flipped, other = digest(BODIES[1]), digest(BODIES[2])
    backend.write(object_key(flipped), b"Body 0")
    backend.write(object_key(other), BODIES[3])

    assert errors(look(backend)) == {flipped: "IntegrityError", other: "IntegrityError"}
    assert errors(look(backend, fast=True)) == {}


def test_the_size_of_a_link_is_no_verdict() -> None:
    """A followed link is listed with its own size, which is not that of the object."""
    sizes = SIZES | {digest(BODIES[1]): 1000, digest(BODIES[2]): 0}

    outcome = look(filled(), sizes, fast=True)

    assert errors(outcome) == {}
    assert outcome.bytes_copied == len(BODIES[1]) + len(BODIES[2])


def test_an_empty_object_of_another_address_is_wrong_whatever_size_is_stated() -> None:
    address = digest(b"something")
    backend = filled([])
    backend.write(object_key(address), b"")

    assert errors(look(backend, {address: 0}, fast=True)) == {address: "IntegrityError"}
    assert errors(look(filled([b""]), {EMPTY_ADDRESS: 0}, fast=True)) == {}


class LateBackend(ForwardingBackend):
    """An object that appears only after it was looked for."""

    def __init__(self, inner: Backend, key: str, body: bytes) -> None:
        super().__init__(inner)
        self.key, self.body = key, body

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        try:
            return self.inner.fetch(key, size_hint)
        finally:
            if key == self.key:
                self.inner.write(key, self.body)


@pytest.mark.parametrize("fast", [False, True])
def test_an_object_that_is_being_written_is_no_false_alarm(fast: bool) -> None:
    late = b"written while somebody looks"
    backend = LateBackend(filled(), object_key(digest(late)), late)

    assert errors(look(backend, SIZES | {digest(late): len(late)}, fast=fast)) == {}


class FailingBackend(ForwardingBackend):
    """Raises for one key."""

    def __init__(self, inner: Backend, key: str, error: Callable[[], Exception]) -> None:
        super().__init__(inner)
        self.key, self.error = key, error

    def _check(self, key: str) -> None:
        if key == self.key:
            raise self.error()

    def size(self, key: str) -> int | None:
        self._check(key)
        return self.inner.size(key)

    def sizes(self, keys: Any) -> list[int | None]:
        return [self.size(key) for key in keys]

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        self._check(key)
        return self.inner.fetch(key, size_hint)

    def open(self, key: str, *, size_hint: int = 0) -> Any:
        self._check(key)
        return self.inner.open(key, size_hint=size_hint)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("error", "named"),
    [(lambda: AccessDenied("m", "", "no"), "AccessDenied"), (lambda: RuntimeError("odd"), "StoreFault")],
)
def test_an_object_that_gives_no_answer_fails_alone(
    fast: bool, error: Callable[[], Exception], named: str
) -> None:
    address = digest(BODIES[7])

    assert errors(look(FailingBackend(filled(), object_key(address), error), fast=fast)) == {address: named}


def test_a_transient_error_is_a_reason_to_try_again() -> None:
    address = digest(BODIES[7])
    backend = FailingBackend(filled(), object_key(address), lambda: StoreUnavailable("m", "", "later"))

    assert look(backend).retryable
    store = SnapshotStore(backend)
    with pytest.raises(StoreUnavailable):
        verify_batch(store, store, SIZES, Progress(), fast=True)


def test_a_batch_that_must_stop_stops() -> None:
    class Stop(BaseException):
        pass

    class Stopping(Progress):
        def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
            super().advance(objects, size_bytes, moved)
            if self.objects > 3:
                raise Stop

    store = SnapshotStore(filled())
    with pytest.raises(Stop):
        verify_batch(store, store, SIZES, Stopping(), concurrency=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("copy-")]


@given(st.data())
def test_any_damage_is_found_exactly(data: st.DataObject) -> None:
    """Whatever is done to the bytes under some addresses: these are reported, and no others."""
    backend, wrong = filled(), set()
    for body in data.draw(st.lists(st.sampled_from(BODIES), max_size=6, unique=True)):
        address = digest(body)
        kind = data.draw(st.sampled_from(["missing", "bytes"]))
        if kind == "missing":
            backend.delete(object_key(address))
            wrong.add(address)
        else:
            put = data.draw(st.binary(max_size=20))
            backend.write(object_key(address), put)
            wrong |= {address} if put != body else set()
    random.shuffle(order := list(SIZES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "SECOND_LOOK_S", 0.0)
        found = errors(look(backend, {address: SIZES[address] for address in order}, concurrency=2))

    assert found.keys() == wrong
