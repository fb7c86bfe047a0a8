"""Many manifests, several at once."""

from __future__ import annotations

import threading

import pytest

from snapferry.stores.backend import Capabilities
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError
from snapferry.stores.inspection.reading import AT_ONCE, Unreadable, read_each
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.interruption import checkpoint, interruptible
from snapferry.stores.snapshot_store import SnapshotStore

from .support import corrupt, file, snapshot_of, store_of

MANIFESTS = [snapshot_of(file(f"./{number}")) for number in range(40)]
IDS = sorted(manifest.id for manifest in MANIFESTS)


class Distant(MemoryBackend):
    capabilities = Capabilities(concurrency=32, pages_listings=False)


@pytest.fixture(params=["near", "distant"])
def store(request: pytest.FixtureRequest) -> SnapshotStore:
    found = store_of(*MANIFESTS)
    if request.param == "distant":
        found.objects.capabilities = Distant.capabilities
    return found


def test_results_come_in_the_given_order(store: SnapshotStore) -> None:
    assert list(read_each(store, iter(IDS), lambda manifest: manifest.id)) == [(each, each) for each in IDS]


def test_an_error_of_one_manifest_stops_no_other(store: SnapshotStore) -> None:
    corrupt(store, IDS[3])
    found = dict(read_each(store, IDS, lambda _: 1))

    bad = found.pop(IDS[3])
    assert isinstance(bad, Unreadable)
    assert isinstance(bad.error, IntegrityError)
    assert list(found.values()) == [1] * 39


def test_a_bug_is_not_taken_for_an_unreadable_manifest(store: SnapshotStore) -> None:
    def bug(manifest: Manifest) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_each(store, IDS, bug))


def test_several_are_read_at_once_and_no_more(store: SnapshotStore) -> None:
    distant = store.concurrency > 1
    meeting = threading.Barrier(AT_ONCE if distant else 1)

    def meet(manifest: Manifest) -> None:
        meeting.wait(240)

    assert len(list(read_each(store, IDS, meet))) == 40


def test_the_owner_stops_all_reads(store: SnapshotStore) -> None:
    class Cancelled(Exception):
        pass

    begun = threading.Event()

    def check() -> None:
        if begun.is_set():
            raise Cancelled

    def wait(manifest: Manifest) -> None:
        begun.set()
        while True:
            checkpoint()

    with interruptible(check), pytest.raises(Cancelled):
        list(read_each(store, IDS, wait))


def test_closing_ends_the_reads_in_progress() -> None:
    store = store_of(*MANIFESTS)
    store.objects.capabilities = Distant.capabilities
    ended = threading.Semaphore(0)

    def wait(manifest: Manifest) -> str:
        if manifest.id == IDS[0]:
            return "first"
        try:
            while True:
                checkpoint()
        finally:
            ended.release()

    found = read_each(store, IDS, wait)
    assert next(found) == (IDS[0], "first")
    found.close()  # type: ignore[attr-defined]
    assert ended.acquire(timeout=240)
