"""Sets and tables of addresses: what Python's own sets and dictionaries would say, in less memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import Address, SnapshotId, addresses_in
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.bulk import address_set
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.bulk.tables import AddressTable, DigestTiers, ObjectTable, found_in, to_digests
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest
from snapferry.stores.pools import publishing
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Published
from tests.property.strategies import addresses, quick, thorough
from tests.sample import fill, random_files

# Zero bytes at the end of a digest are what NumPy's byte strings treat specially.
odd = st.sampled_from(
    ["0" * 64, "0" * 63 + "1", "f" * 62 + "00", "f" * 64, "ab" + "0" * 62, "ab01" + "0" * 60]
)
some = st.lists(st.one_of(addresses, odd), max_size=20)


@contextmanager
def tables_from(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address_set, "MANY", count)
        yield


@thorough
@given(st.lists(some, max_size=6), st.lists(some, max_size=3), some, st.integers(0, 30), st.integers(1, 7))
def test_a_set_of_addresses_is_a_set_however_many_are_kept_in_a_table(
    added: list[list[Address]], others: list[list[Address]], asked: list[Address], many: int, count: int
) -> None:
    expected = {address for one in added for address in one}
    other = {address for one in others for address in one}
    with tables_from(many):
        found, second = AddressSet(), AddressSet()
        for one in added:
            found.update(one)
        for one in others:
            second.update(one)

        assert len(found) == len(expected)
        assert [a for chunk in found.chunks(count) for a in chunk] == sorted(expected)
        assert all(len(chunk) == count for chunk in list(found.chunks(count))[:-1])
        assert found.among(asked) == [address for address in asked if address in expected]
        assert found.common(second) == second.common(found) == len(expected & other)


@thorough
@given(st.lists(some, max_size=8), some)
def test_tiers_hold_what_was_added_to_them(added: list[list[Address]], asked: list[Address]) -> None:
    tiers, expected = DigestTiers(), set[Address]()
    for one in added:
        new = sorted({*one} - expected)
        assert not tiers.mask(to_digests(new)).any()
        tiers.add(to_digests(new))
        expected |= {*one}

    assert len(tiers) == len(expected)
    assert tiers.mask(to_digests(asked)).tolist() == [address in expected for address in asked]


def test_tiers_stay_few() -> None:
    tiers = DigestTiers()
    for number in range(200):
        tiers.add(to_digests(sorted(digest(b"%d/%d" % (number, one)) for one in range(10))))

    assert len(tiers) == 2000
    assert len(tiers._tiers) < 12


@thorough
@given(st.lists(some, max_size=5), addresses | odd, addresses | odd)
def test_a_table_tells_what_lies_between_two_addresses(
    added: list[list[Address]], first: Address, last: Address
) -> None:
    table = AddressTable()
    for one in added:
        table.update(one)
        table.between(first, last)
    expected = sorted(address for address in {a for one in added for a in one} if first <= address <= last)

    assert table.between(first, last) == expected
    assert table.count_between(first, last) == len(expected)


def test_what_many_manifests_have_in_common_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.stores.bulk.tables._ROWS", 50)
    common = [digest(b"%d" % number) for number in range(100)]
    table = AddressTable()
    for _ in range(100):
        table.update(common)
        assert len(table._bytes) <= 32 * 300

    assert len(table) == 100


@quick
@given(some, some)
def test_a_look_up_longer_than_one_piece_says_the_same(table: list[Address], asked: list[Address]) -> None:
    ordered = to_digests(sorted({*table}))

    assert found_in(ordered, to_digests(asked)).tolist() == [address in {*table} for address in asked]


lines = st.lists(
    st.tuples(
        st.sampled_from("FFFD"),
        st.one_of(addresses, odd),
        st.one_of(st.integers(0, 99), st.just(LARGEST_PLANNED_BYTES + 5)),
    ),
    min_size=1,
    max_size=30,
)


@thorough
@given(lines)
@example([("F", "0" * 64, 4), ("F", "0" * 64, 300), ("F", "0" * 64, 5)])
@example([("D", "0" * 64, 4)])
def test_the_table_of_a_manifest_is_its_objects_in_the_order_of_their_addresses(
    rows: list[tuple[str, str, int]],
) -> None:
    text = render(
        Entry(kind, "644", checksum, size, f"./{number}" + ("/" if kind == "D" else ""))
        for number, (kind, checksum, size) in enumerate(rows)
    )
    with Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest:
        objects, table = manifest.objects(), manifest.table()
        named = manifest.addresses()

    assert isinstance(table, ObjectTable)
    assert dict(zip(addresses_in(table.digests.tobytes()), table.sizes.tolist(), strict=True)) == objects
    assert addresses_in(table.digests.tobytes()) == sorted(objects)
    assert table.size_bytes == sum(objects.values())
    assert [a for chunk in named.chunks(9) for a in chunk] == sorted(objects)


def test_a_sum_of_sizes_may_be_more_than_64_bits() -> None:
    ordered = sorted(digest(b"%d" % number) for number in range(5))
    with Manifest.from_bytes(SnapshotId(digest(b"\n")), b"\n") as manifest:
        table = manifest.table()
    largest = ObjectTable(to_digests(ordered), table.sizes.__class__((5,), table.sizes.dtype))
    largest.sizes[:] = 2**64 - 1

    assert table.size_bytes == 0
    assert largest.size_bytes == 5 * (2**64 - 1)


@pytest.mark.parametrize("many", [0, 10, 10**6])
def test_publishing_asks_for_everything_and_names_what_is_missing_however_many_there_are(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MISSING_KEPT", 7)
    monkeypatch.setattr("snapferry.stores.pools.existence.LISTING_KEYS_PER_PAGE", 11)
    source = SnapshotStore(MemoryBackend("source"))
    ids = [fill(source, random_files(40, seed=seed)) for seed in (1, 2)]
    backend = MemoryBackend("destination")
    destination = SnapshotStore(backend)
    with source.read_manifest(ids[0]) as one, source.read_manifest(ids[1]) as other:
        objects, others = list(one.objects()), list(other.objects())
    lost = {*random.Random(1).sample(objects, 12)} - {*others}
    for address in {*objects, *others} - lost:
        destination.copy_object(source, address)

    with tables_from(many):
        published = destination.publish_all(source, ids)

    named = [address for address in objects if address in lost]
    assert published == {ids[0]: Published(tuple(named[:7])), ids[1]: Published(written=True)}
    assert destination.list_manifest_ids() == [ids[1]]
