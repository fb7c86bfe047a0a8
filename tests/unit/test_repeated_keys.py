"""A listing that repeats a key, as some servers' do under load, says what one without repetitions says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from snapferry.orchestrator.planning.surplus import surplus
from snapferry.stores.address import OBJECTS, object_key
from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.hashing import digest
from snapferry.stores.pools.existence import OBJECT_SPACE, survey
from snapferry.stores.snapshot_store import SnapshotStore
from tests.faults.backends import Around
from tests.sample import fill


class Repeats(Around):
    """Lists each key as often as *times*, as a store that pages its listings."""

    def __init__(self, inner: Backend, times: int) -> None:
        super().__init__(inner)
        self.capabilities = Capabilities(concurrency=1, pages_listings=True)
        self._times = times

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        listed = self.inner.keys(prefix, start_after)
        return chain.from_iterable([found] * self._times for found in listed)


@pytest.mark.parametrize("times", [2, 3, 700, 1500])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_presence_is_what_it_is_without_repetitions(times: int, count: int) -> None:
    backend = MemoryBackend()
    present = sorted(digest(b"object %d" % number) for number in range(count))
    absent = sorted(digest(b"absent %d" % number) for number in range(count))
    for address in present:
        backend.write(object_key(address), b"data")

    assert set(survey(Repeats(backend, times), OBJECT_SPACE, sorted(present + absent)).needed) == set(absent)
    assert {found.key for found in Repeats(backend, times).keys(OBJECTS)} == set(map(object_key, present))


def test_manifests_are_listed_once_and_a_mirror_deletes_each_once() -> None:
    source, destination = MemoryBackend(), MemoryBackend()
    kept = fill(SnapshotStore(source), {"./kept": b"kept"})
    assert fill(SnapshotStore(destination), {"./kept": b"kept"}) == kept
    surplus_ids = sorted(fill(SnapshotStore(destination), {f"./{n}": b"%d" % n}) for n in range(3))

    here, there = SnapshotStore(Repeats(source, 2)), SnapshotStore(Repeats(destination, 3))

    assert here.list_manifest_ids() == [kept]
    assert there.list_manifest_ids() == sorted([kept, *surplus_ids])
    assert surplus(here, there) == (surplus_ids, 1)
    assert there.manifests_present([kept, "0" * 64]) == {kept}
