"""What is needed: the same answer as a set of names would give, for few questions."""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import (
    EMPTY_ADDRESS,
    OBJECTS,
    Address,
    SnapshotId,
    address_of,
    addresses_in,
    digests_of,
    manifest_key,
    object_key,
)
from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.bulk import address_set
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import InvalidAddress
from snapferry.stores.hashing import digest
from snapferry.stores.pools.absence.digests import absent_digests, plain_digests
from snapferry.stores.pools.existence import OBJECT_SPACE, addresses_of_a_piece, survey
from snapferry.stores.snapshot_store import SnapshotStore
from tests.integration.processes import PATIENCE_S
from tests.property.strategies import addresses, quick, thorough

PAGE = 1000


class PagedBackend(MemoryBackend):
    """Lists by pages of a thousand keys, as S3 does, and counts what it is asked: pages and single questions."""

    capabilities = Capabilities(concurrency=1, pages_listings=True)

    def __init__(self, page: int = PAGE) -> None:
        super().__init__("paged")
        self.page = page
        self.pages = 0
        self.heads = 0

    @property
    def requests(self) -> int:
        return self.pages + self.heads

    def size(self, key: str) -> int | None:
        self.heads += 1
        return super().size(key)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """Yield the keys; a page is asked for when its first key is, and a full page is followed by another."""
        self.pages += 1
        for number, found in enumerate(super().keys(prefix, start_after)):
            if number and number % self.page == 0:
                self.pages += 1
            yield found


def hold(backend: Backend, present: set[Address], torn: set[Address]) -> SnapshotStore:
    for address in present | torn:
        whole = address in present and address != EMPTY_ADDRESS
        backend.write(object_key(address), b"x" if whole else b"")
    return SnapshotStore(backend)


def absent(asked: list[Address], present: set[Address]) -> list[Address]:
    return [address for address in asked if address not in present]


# What a store holds and what it is asked for, with an overlap that is likely; torn: filed without a byte.
pool = st.lists(st.one_of(addresses, st.just(EMPTY_ADDRESS)), min_size=1, max_size=40, unique=True)


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[Address], set[Address], set[Address]]:
    known = draw(pool)
    asked = draw(st.lists(st.sampled_from(known), max_size=60))
    present = draw(st.sets(st.sampled_from(known)))
    torn = draw(st.sets(st.sampled_from(known))) - present - {EMPTY_ADDRESS}
    return asked, present, torn


@thorough
@given(questions())
def test_what_is_needed_is_what_is_asked_for_without_what_is_there_in_order(
    question: tuple[list[Address], set[Address], set[Address]],
) -> None:
    asked, present, torn = question

    assert hold(MemoryBackend(), present, torn).objects_needed(asked) == absent(asked, present)


@quick
@given(questions())
def test_a_directory_gives_the_same_answer(
    question: tuple[list[Address], set[Address], set[Address]],
) -> None:
    asked, present, torn = question
    with tempfile.TemporaryDirectory() as root:
        store = SnapshotStore(DirectoryBackend(root))
        hold(DirectoryBackend(root), present, torn)

        assert store.objects_needed(asked) == absent(asked, present)


@quick
@given(questions())
def test_a_directory_that_does_not_exist_needs_everything(
    question: tuple[list[Address], set[Address], set[Address]],
) -> None:
    asked, _, _ = question

    assert SnapshotStore(DirectoryBackend("/nonexistent/store")).objects_needed(asked) == asked


def many(count: int, seed: int) -> list[Address]:
    random_ = random.Random(seed)
    return sorted(Address(f"{random_.getrandbits(256):064x}") for _ in range(count))


# A batch asks for a range; the store holds strangers in and around it: (asked, of them present, strangers).
crowds = st.tuples(
    st.integers(0, 400),
    st.floats(0, 1),
    st.sampled_from([0, 1, 20, 300, 2500]),
    st.integers(0, 2**16),
)


@quick
@given(crowds, st.booleans())
@example((1, 1.0, 2500, 1), True)
@example((2, 1.0, 2500, 1), True)
@example((400, 0.0, 2500, 7), False)
@example((400, 1.0, 0, 7), False)
def test_a_listing_with_strangers_between_gives_the_same_answer_and_never_costs_more_than_asking_one_by_one(
    crowd: tuple[int, float, int, int], narrow: bool
) -> None:
    """Far fewer requests than objects where there are few strangers."""
    count, share, strangers, seed = crowd
    asked = many(count, seed)
    if narrow:
        asked = [Address(f"7{address[1:]}") for address in asked]
    present = {address for address in asked if random.Random(address).random() < share}
    others = [Address(f"7{address[1:]}") for address in many(strangers, seed + 1)]
    torn = set(asked[::10]) - present
    backend = PagedBackend()
    store = hold(backend, present | set(others), torn)
    # Keys that are no objects: what a writer that died, or another program, left there.
    for address in asked[::7]:
        MemoryBackend.write(backend, object_key(address) + ".tmp", b"stranger")
    backend.pages = backend.heads = 0

    needed, between = store.survey(asked)

    assert needed == absent(asked, present)
    assert backend.requests <= len(asked)
    ordered = sorted(map(object_key, asked))
    keys = sum(ordered[0] <= key <= ordered[-1] for key in backend._files) if asked else 0
    if between is not None and not backend.heads and backend.pages == 1:
        assert between == keys
    if not strangers and len(asked) > 1:
        assert backend.requests == 1


@quick
@given(
    st.integers(0, 1500),
    st.sampled_from([0, 1, 900, 1000, 2500, 12_000]),
    st.integers(0, 2**16),
    st.booleans(),
)
@example(1000, 0, 1, True)
@example(1001, 2500, 1, True)
def test_what_a_question_costs_is_foretold_exactly_where_all_keys_are_known(
    count: int, strangers: int, seed: int, half: bool
) -> None:
    asked = many(count, seed)
    others = many(strangers, seed + 1)
    there = sorted({*others, *(asked[::2] if half else asked)})
    backend = PagedBackend()
    store = hold(backend, set(there), set())
    backend.pages = backend.heads = 0

    store.objects_needed(asked)

    predicted = store.accounting.to_survey_among(asked, there)
    assert (predicted["ListObjectsV2"], predicted["HeadObject"]) == (backend.pages, backend.heads)
    assert backend.requests <= count


def test_keys_before_the_first_address_that_fill_a_page_do_not_answer_for_it() -> None:
    """A thousand strangers share all but the last digit of the address that is asked for."""
    asked = [Address(text) for text in (f"{'7' * 63}9", "8" * 64, "9" * 64)]
    backend = PagedBackend()
    store = hold(backend, set(asked[:2]), set())
    for number in range(1000):
        MemoryBackend.write(backend, f"{object_key(asked[0])[:-1]}0-{number:04}", b"stranger")
    backend.pages = backend.heads = 0

    assert store.objects_needed(asked) == asked[2:]
    assert (backend.pages, backend.heads) == (1, 3)


def test_a_listing_answers_for_a_batch_in_an_empty_store_by_one_request() -> None:
    backend = PagedBackend()

    assert len(SnapshotStore(backend).objects_needed(many(1000, 1))) == 1000
    assert (backend.pages, backend.heads) == (1, 0)


def test_a_listing_answers_for_a_batch_in_a_full_store_by_a_request_per_page() -> None:
    """A batch is a contiguous range: a store that holds this snapshot alone holds no strangers inside."""
    asked = many(5000, 2)
    backend = PagedBackend()
    store = hold(backend, set(asked), set())
    backend.pages = backend.heads = 0

    assert store.objects_needed(asked[1000:2000]) == []
    assert backend.heads == 0
    assert backend.pages <= 2


def test_a_listing_is_given_up_after_one_page_where_strangers_fill_it_and_the_rest_is_asked_singly() -> None:
    asked = [Address(f"7{address[1:]}") for address in many(100, 3)]
    others = {Address(f"7{address[1:]}") for address in many(40_000, 4)}
    backend = PagedBackend()
    store = hold(backend, set(asked[::2]) | others, set())
    backend.pages = backend.heads = 0

    assert store.objects_needed(asked) == asked[1::2]
    assert backend.pages == 1
    assert backend.requests <= 100
    assert backend.requests == pytest.approx(store.accounting.to_survey(100, 40_000).total(), rel=0.05)
    assert store.survey(asked).keys_between == pytest.approx(40_000, rel=0.2)


def test_a_listing_goes_on_where_each_page_still_answers_for_many() -> None:
    asked = many(1000, 5)
    backend = PagedBackend()
    store = hold(backend, set(asked[::2]) | set(many(20_000, 6)), set())
    backend.pages = backend.heads = 0

    assert store.objects_needed(asked) == asked[1::2]
    assert backend.heads == 0
    assert 15 < backend.pages <= store.accounting.to_survey(1000, 20_500)["ListObjectsV2"]


@quick
@given(
    st.lists(addresses, max_size=5),
    st.text(max_size=70).filter(lambda text: len(text) != 64),
    st.integers(0, 5),
)
def test_no_question_is_asked_before_every_address_has_its_form(
    good: list[Address], bad: str, at: int
) -> None:
    backend = PagedBackend()

    with pytest.raises(InvalidAddress):
        SnapshotStore(backend).objects_needed(iter([*good[:at], bad, *good[at:]]))

    assert backend.requests == 0


def test_the_empty_object_is_there_when_it_is_filed_and_another_one_without_bytes_is_not() -> None:
    torn = digest(b"x")
    store = hold(MemoryBackend(), {EMPTY_ADDRESS}, {torn})

    assert store.objects_needed([torn, EMPTY_ADDRESS]) == [torn]
    assert store.has_object(EMPTY_ADDRESS)
    assert not store.has_object(torn)


@quick
@given(questions(), st.booleans())
def test_manifests_present_are_those_that_are_filed_with_at_least_a_byte(
    question: tuple[list[Address], set[Address], set[Address]], paged: bool
) -> None:
    asked, present, torn = question
    backend = PagedBackend() if paged else MemoryBackend()
    for snapshot in present | torn:
        backend.write(manifest_key(SnapshotId(snapshot)), b"x" if snapshot in present else b"")
        backend.write(object_key(snapshot), b"x")
    store = SnapshotStore(MemoryBackend("objects"), backend)

    assert store.manifests_present(asked) == set(asked) & present


def test_manifests_are_asked_for_by_one_listing() -> None:
    backend = PagedBackend()
    asked = many(500, 5)
    for snapshot in asked[::2]:
        backend.write(manifest_key(SnapshotId(snapshot)), b"x")

    assert SnapshotStore(backend).manifests_present(asked) == set(asked[::2])
    assert (backend.pages, backend.heads) == (1, 0)


def test_no_address_is_asked_for_twice() -> None:
    backend = PagedBackend()

    assert SnapshotStore(backend).objects_needed([EMPTY_ADDRESS] * 5) == [EMPTY_ADDRESS] * 5
    assert backend.requests == 1


class MeetingBackend(PagedBackend):
    """Answers the first page of each piece when so many pieces have asked for theirs."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self._all_there = threading.Barrier(pieces)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        listed = list(super().keys(prefix, start_after))
        self._all_there.wait(PATIENCE_S)
        yield from listed


@quick
@given(crowds, st.integers(1, 50), st.integers(0, 3))
@example((400, 0.5, 2500, 7), 400, 0)
@example((400, 1.0, 0, 7), 400, 3)
@example((400, 0.0, 0, 7), 400, 1)
def test_digests_give_the_same_answer_by_the_same_requests(
    crowd: tuple[int, float, int, int], every: int, foreign: int
) -> None:
    """Some objects are torn, some keys are no objects, and the empty object is asked for."""
    count, share, strangers, seed = crowd
    asked = sorted({*many(count, seed), EMPTY_ADDRESS, Address("7" * 61 + "a00")})
    present = {address for address in asked if random.Random(address).random() < share}
    backend = PagedBackend()
    hold(backend, present | set(many(strangers, seed + 1)), set(asked[::every]) - present - {EMPTY_ADDRESS})
    for address in asked[::every] if foreign else []:
        names = (f"{object_key(address)}.tmp", object_key(address).upper(), f"{object_key(address)[:-1]} ")
        MemoryBackend.write(backend, OBJECTS + names[foreign - 1][len(OBJECTS) :], b"stranger")
    answers = []
    for needed in (
        lambda: survey(backend, OBJECT_SPACE, asked).needed,
        lambda: addresses_in(absent_digests(backend, OBJECT_SPACE, digests_of(asked))),
    ):
        backend.pages = backend.heads = 0
        answers.append((needed(), backend.pages, backend.heads))

    assert answers[0] == answers[1]
    assert answers[0][0] == absent(asked, present)


def test_foreign_keys_on_a_page_do_not_stand_for_objects() -> None:
    asked = sorted(many(PAGE + 10, 7))
    backend = PagedBackend()
    hold(backend, set(asked[: PAGE - 2]), set())
    for number in range(2):
        MemoryBackend.write(backend, f"{object_key(asked[0])}.tmp{number}", b"stranger")

    absent_ones = addresses_in(absent_digests(backend, OBJECT_SPACE, digests_of(asked)))

    assert absent_ones == asked[PAGE - 2 :]


@thorough
@given(
    st.lists(addresses, max_size=4),
    st.lists(st.text(".objects/0aFf \u0660", min_size=76, max_size=76), max_size=2),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 75), st.sampled_from("0aF/ .\u0660")), max_size=2),
)
def test_digests_of_keys_are_those_of_their_addresses(
    good: list[Address], other: list[str], changes: list[tuple[int, int, str]]
) -> None:
    keys = [*map(str, map(object_key, good)), *other]
    for number, at, character in changes:
        if number < len(keys):
            keys[number] = f"{keys[number][:at]}{character}{keys[number][at + 1 :]}"
    found = [address_of(key, OBJECTS) for key in keys]

    digests = plain_digests(OBJECT_SPACE, keys)

    assert digests == (None if None in found else digests_of(filter(None, found)))


@pytest.mark.parametrize("most", [address_set.MANY, 1000])
@pytest.mark.parametrize(("count", "pieces"), [(2000, 1), (8000, 4), (7001, 4), (5000, 3), (44_000, 5)])
def test_many_are_asked_for_in_pieces_each_for_the_pages_that_were_foretold(
    count: int, pieces: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are in a table."""
    monkeypatch.setattr(address_set, "MANY", most)
    asked = many(count, 7)
    backend = PagedBackend()
    store = hold(backend, set(asked[::2]), set())
    backend.pages = backend.heads = 0
    addresses = AddressSet(asked)

    found = store.absent(addresses)

    chunks = list(addresses.chunks(addresses_of_a_piece(count)))
    foretold: Counter[str] = sum(
        (store.accounting.to_survey_among(chunk, asked[::2]) for chunk in chunks), Counter()
    )
    assert len(chunks) == pieces
    assert (backend.pages, backend.heads) == (foretold["ListObjectsV2"], foretold["HeadObject"])
    assert [address for chunk in found.chunks(count) for address in chunk] == asked[1::2]


def test_the_pieces_of_a_question_are_asked_at_once() -> None:
    """Each first page waits until all four were asked for, so asking one after the other would wait for ever."""
    store = SnapshotStore(MeetingBackend(4))

    assert len(store.absent(AddressSet(many(8000, 8)))) == 8000
