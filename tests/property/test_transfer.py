"""Laws of a batch: every object is counted once, and progress ends where the plan said."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.address import Address, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer import copy_batch
from snapferry.workers.outcome import BatchOutcome
from tests.faults.backends import Around, FlipsLastByte, Forbids, Truncates, Unavailable
from tests.property.strategies import filed, object_bytes, thorough

LARGE = b"large" * 300_000
LARGE_ADDRESS = digest(LARGE)


class Sums:
    """Adds up what a batch reports, and remembers that it never went back."""

    def __init__(self) -> None:
        self.objects = 0
        self.bytes = 0
        self.moved = 0
        self.needed: list[list[Address]] = []
        self.monotonic = True
        self._lock = threading.Lock()

    def begin(self, needed: list[Address]) -> None:
        assert self.objects == 0
        self.needed.append(needed)

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        with self._lock:
            self.objects += objects
            self.bytes += size_bytes
            self.moved += moved
            self.monotonic = self.monotonic and objects >= 0 and size_bytes >= 0 and moved >= 0


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[Address, bytes], dict[Address, int], set[Address], set[Address]]:
    """Return objects, advisory sizes (right, wrong or absurd), what is present, and what is bad at the source."""
    objects = filed(draw(st.lists(object_bytes, max_size=10)))
    advisory = st.one_of(st.integers(0, 50), st.just(2**64 - 1))
    sizes = {a: draw(st.one_of(st.just(len(data)), advisory)) for a, data in objects.items()}
    if draw(st.booleans()):
        # Large enough to be counted piece by piece; its advisory size may be on either side of its real one.
        objects[LARGE_ADDRESS] = LARGE
        sizes[LARGE_ADDRESS] = draw(st.integers(CHUNK_BYTES - 1, 2 * len(LARGE)))
    names = st.sets(st.sampled_from(sorted(objects))) if objects else st.just(set[Address]())
    return objects, sizes, draw(names), draw(names)


def stores(objects: dict[Address, bytes], present: set[Address]) -> tuple[SnapshotStore, SnapshotStore]:
    source, destination = SnapshotStore(MemoryBackend("source")), SnapshotStore(MemoryBackend("destination"))
    for address, data in objects.items():
        source.put_object(address, data)
        if address in present:
            destination.put_object(address, data)
    return source, destination


def assert_exact(outcome: BatchOutcome, sums: Sums, sizes: dict[Address, int]) -> None:
    assert outcome.copied + outcome.present + len(outcome.failures) == len(sizes)
    assert (sums.objects, sums.bytes, sums.monotonic) == (len(sizes), sum(sizes.values()), True)
    (needed,) = sums.needed
    assert len(set(needed)) == len(needed) == outcome.copied + len(outcome.failures)
    assert sum(sizes[address] for address in needed) == outcome.needed_bytes
    assert {failure.address for failure in outcome.failures} <= set(needed)


@thorough
@given(batches(), st.integers(1, 4))
def test_a_batch_copies_what_is_absent_and_a_second_run_copies_nothing(
    batch: tuple[dict[Address, bytes], dict[Address, int], set[Address], set[Address]], concurrency: int
) -> None:
    objects, sizes, present, _ = batch
    source, destination = stores(objects, present)
    first, second = Sums(), Sums()

    outcome = copy_batch(source, destination, sizes, first, concurrency=concurrency)
    again = copy_batch(source, destination, sizes, second, concurrency=concurrency)

    assert (outcome.copied, outcome.present) == (len(objects) - len(present), len(present))
    assert outcome.bytes_copied == sum(len(data) for a, data in objects.items() if a not in present)
    assert (again.copied, again.present, again.bytes_copied) == (0, len(objects), 0)
    assert (set(first.needed[0]), second.needed) == (objects.keys() - present, [[]])
    assert (first.moved, second.moved) == (outcome.bytes_copied, 0)
    assert_exact(outcome, first, sizes)
    assert_exact(again, second, sizes)
    assert all(destination.get_object(address) == data for address, data in objects.items())


faults = st.sampled_from([FlipsLastByte, Truncates, Unavailable, None])


@thorough
@given(batches(), faults, st.integers(1, 4))
def test_what_cannot_be_read_fails_alone_and_is_counted_once(
    batch: tuple[dict[Address, bytes], dict[Address, int], set[Address], set[Address]],
    fault: type | None,
    concurrency: int,
) -> None:
    """A fault of None removes the objects from the source. One half of no bytes is no bytes: that is no fault."""
    objects, sizes, present, bad = batch
    bad = {address for address in bad if objects[address]}
    source, destination = stores(objects, present)
    if fault is None:
        for address in bad:
            source.objects.delete(object_key(address))
    else:
        keys = {object_key(address) for address in bad}
        source = SnapshotStore(fault(source.objects, strikes=keys.__contains__))
    sums = Sums()

    outcome = copy_batch(source, destination, sizes, sums, concurrency=concurrency)

    assert {failure.address for failure in outcome.failures} == bad - present
    assert_exact(outcome, sums, sizes)
    for address, data in objects.items():
        if address in bad - present:
            assert not destination.has_object(address)
        else:
            assert destination.get_object(address) == data


@thorough
@given(batches())
def test_nothing_is_written_for_what_is_present(
    batch: tuple[dict[Address, bytes], dict[Address, int], set[Address], set[Address]],
) -> None:
    objects, sizes, _, _ = batch
    source, full = stores(objects, set(objects))
    closed = SnapshotStore(Around(Forbids(full.objects)))

    outcome = copy_batch(source, closed, sizes, Sums())

    assert (outcome.present, outcome.failures) == (len(objects), [])
