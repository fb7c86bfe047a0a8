"""What is needed, asked in many calls and in no order: the right answers, for requests that do not multiply."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.address import EMPTY_ADDRESS, OBJECTS, Address, address_of, object_key
from snapferry.stores.backend import Listed
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.pools.existence import HEADS_FOR_A_LIST
from snapferry.stores.pools.listing_memory import ListingMemory
from snapferry.stores.snapshot_store import SnapshotStore
from tests.property.strategies import quick, thorough
from tests.property.test_existence import PagedBackend, absent, hold, many, questions

PAGE = 1000
BATCH = 1000


class EvenBackend(PagedBackend):
    """Holds *count* objects at even distances, none of which is in memory, and what is written besides."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.step = 2**256 // count

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """As the parent class. *start_after* is a key, or one without its last digit."""
        self.pages += 1
        digits = start_after.removeprefix(OBJECTS).replace("/", "")
        number = -(-int(digits.ljust(64, "0"), 16) // self.step) if digits else 0
        while (at := number * self.step) < 2**256:
            key = object_key(Address(f"{at:064x}"))
            if key > start_after:
                yield Listed(key, 1, 0.0)
            number += 1

    def size(self, key: str) -> int | None:
        address = address_of(key, OBJECTS)
        assert address is not None
        if int(address, 16) % self.step == 0:
            self.heads += 1
            return 1
        return super().size(key)


def in_batches(asked: list[Address], size: int = BATCH) -> list[list[Address]]:
    mixed = random.Random(1).sample(asked, len(asked))
    return [mixed[at : at + size] for at in range(0, len(mixed), size)]


@thorough
@given(st.lists(questions(), max_size=4), st.sampled_from([1, 2, 3, 1000]), st.booleans())
def test_the_answers_are_those_of_a_store_that_is_asked_afresh(
    drawn: list[tuple[list[Address], set[Address], set[Address]]], most_keys: int, again: bool
) -> None:
    present = {address for _, there, _ in drawn for address in there}
    torn = {address for _, _, cut in drawn for address in cut} - present - {EMPTY_ADDRESS}
    backend = PagedBackend()
    store = hold(backend, present, torn)
    memory = ListingMemory(most_keys=most_keys)

    for asked, _, _ in drawn:
        assert store.objects_needed_of_many(asked, memory, again=again) == absent(asked, present)


# How many objects the destination has, and whether those of the push are among them.
@quick
@given(
    st.integers(0, 3000), st.integers(0, 4000), st.floats(0, 1), st.integers(1, 1500), st.integers(0, 2**16)
)
def test_crowded_stores_give_the_same_answers_for_no_more_requests_than_questions(
    count: int, strangers: int, share: float, size: int, seed: int
) -> None:
    asked = many(count, seed)
    present = {address for address in asked if random.Random(address).random() < share}
    backend = PagedBackend()
    store = hold(backend, present | set(many(strangers, seed + 1)), set())
    memory = ListingMemory()
    backend.pages = backend.heads = 0
    for batch in in_batches(asked, size):
        assert store.objects_needed_of_many(batch, memory) == absent(batch, present)

    # One page may end before the address for which it was listed.
    assert backend.requests <= len(asked) + 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["empty", "half-full", "full"])
def test_a_push_lists_each_key_once_however_many_batches_it_has(share: float) -> None:
    asked = many(20_000, 1)
    present = set(random.Random(2).sample(asked, int(share * len(asked))))
    backend = PagedBackend()
    store = hold(backend, present, set())
    memory = ListingMemory()
    backend.pages = backend.heads = 0

    for batch in in_batches(asked):
        needed = store.objects_needed_of_many(batch, memory)
        assert needed == absent(batch, present)
        for address in needed:
            backend.write(object_key(address), b"x")
        memory.add(needed)

    assert backend.pages <= 1 + len(present) / PAGE + 4
    assert backend.heads <= 4 * HEADS_FOR_A_LIST


@pytest.mark.parametrize(
    ("strangers", "count"), [(10_000_000, 20_000), (150_000, 20_000), (100_000, 20_000), (20_000, 3)]
)
def test_the_cost_of_all_batches_is_at_most_about_twice_that_of_the_better_way(
    strangers: int, count: int
) -> None:
    backend = EvenBackend(strangers)
    store = SnapshotStore(backend)
    memory = ListingMemory()

    for batch in in_batches(many(count, 1)):
        assert store.objects_needed_of_many(batch, memory) == batch

    listing_all = math.ceil(strangers / PAGE) * HEADS_FOR_A_LIST
    cost = backend.heads + HEADS_FOR_A_LIST * backend.pages
    assert cost <= 2.2 * min(listing_all, count) + 3 * HEADS_FOR_A_LIST
    assert backend.requests <= count + 1


def test_a_store_with_more_keys_than_a_memory_keeps_is_asked_for_each_object() -> None:
    backend = EvenBackend(50_000)
    memory = ListingMemory(most_keys=10_000)

    for batch in in_batches(many(20_000, 1)):
        SnapshotStore(backend).objects_needed_of_many(batch, memory)

    assert backend.pages == 1
    assert backend.heads <= 20_000


def test_what_was_written_by_this_process_is_present() -> None:
    others = many(2000, 1)
    backend = PagedBackend()
    store, memory = SnapshotStore(backend), ListingMemory()
    assert store.objects_needed_of_many(others, memory) == others
    requests = backend.requests

    memory.add(others[:50])

    assert store.objects_needed_of_many(others[40:60], memory) == others[50:60]
    assert backend.requests == requests


def test_a_batch_that_runs_again_asks_for_what_the_memory_calls_absent() -> None:
    """Its earlier run wrote objects in a process that died."""
    asked = many(50, 1)
    backend = PagedBackend()
    store, memory = SnapshotStore(backend), ListingMemory()
    store.objects_needed_of_many(asked, memory)
    hold(backend, set(asked[:20]), set())

    assert store.objects_needed_of_many(asked, memory) == asked
    assert store.objects_needed_of_many(asked, memory, again=True) == asked[20:]
    assert store.objects_needed_of_many(asked, memory) == asked[20:]


def test_a_memory_forgets_what_is_old() -> None:
    asked = many(50, 1)
    now = 0.0
    backend = PagedBackend()
    store, memory = SnapshotStore(backend), ListingMemory(max_age_s=60, clock=lambda: now)
    assert store.objects_needed_of_many(asked, memory) == asked
    hold(backend, set(asked), set())

    now = 60.0
    assert store.objects_needed_of_many(asked, memory) == asked
    now = 61.0
    assert store.objects_needed_of_many(asked, memory) == []


def test_an_unanswered_question_is_not_remembered() -> None:
    class Breaks(PagedBackend):
        broken = True

        def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
            for number, found in enumerate(super().keys(prefix, start_after)):
                if self.broken and number == 500:
                    raise StoreUnavailable("paged", "", "no answer")
                yield found

    asked = many(3000, 1)
    backend = Breaks()
    store, memory = hold(backend, set(asked), set()), ListingMemory()
    with pytest.raises(StoreUnavailable):
        store.objects_needed_of_many(asked, memory)

    backend.broken = False
    assert store.objects_needed_of_many(asked, memory) == []


def test_a_store_without_pages_is_asked_as_ever() -> None:
    asked = many(20, 1)
    store, memory = hold(MemoryBackend(), set(asked[::2]), set()), ListingMemory()

    assert store.objects_needed_of_many(asked, memory) == asked[1::2]
    store.put_object(EMPTY_ADDRESS, b"")
    assert store.objects_needed_of_many([EMPTY_ADDRESS], memory) == []


def test_foreign_keys_that_fill_a_page_answer_nothing() -> None:
    asked = many(100, 1)
    backend = PagedBackend()
    store, memory = hold(backend, set(asked[:50]), set()), ListingMemory()
    for number in range(1500):
        MemoryBackend.write(backend, f"{OBJECTS}{asked[0][:3]}/{number:04}", b"stranger")
    backend.pages = backend.heads = 0

    assert store.objects_needed_of_many(asked, memory) == asked[50:]
    assert backend.requests <= 101


def test_threads_list_once() -> None:
    asked = many(8000, 1)
    backend = PagedBackend()
    store, memory = hold(backend, set(asked), set()), ListingMemory()
    backend.pages = backend.heads = 0
    needed: list[Address] = []

    def ask(batch: list[Address]) -> None:
        needed.extend(store.objects_needed_of_many(batch, memory))

    threads = [threading.Thread(target=ask, args=(batch,)) for batch in in_batches(asked)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert needed == []
    assert backend.pages <= 11
