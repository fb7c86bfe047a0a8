"""Distinct objects with their first sizes: as a dictionary and as a table, the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.address import Address
from snapferry.stores.bulk import union, union_table
from snapferry.stores.bulk.union import Counted, ObjectUnion
from tests.property.strategies import quick, sizes

few_addresses = st.integers(0, 12).map(lambda number: Address(f"{number:064x}"))
additions = st.lists(st.lists(st.tuples(few_addresses, sizes), max_size=8), max_size=8)


@pytest.fixture(params=["dictionary", "table", "both"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(union, "MANY", {"dictionary": 1000, "table": -1, "both": 5}[request.param])
    monkeypatch.setattr(union_table, "_ROWS", 3)
    monkeypatch.setattr(union, "CHUNK", 4)
    return


@pytest.mark.usefixtures("_kind")
class TestUnion:
    @quick
    @given(additions)
    def test_the_first_size_counts_and_repetitions_are_counted(
        self, lists: list[list[tuple[Address, int]]]
    ) -> None:
        found, first, again = ObjectUnion(), dict[Address, int](), set[Address]()
        for added in lists:
            found.add([address for address, _ in added], (size for _, size in added))
            for address, size in added:
                again |= {address} & first.keys()
                first.setdefault(address, size)
            assert found.exceeds(len(first) - 1)
            assert not found.exceeds(len(first))
        assert len(found) == len(first)
        assert found.total() == Counted(len(first), sum(first.values()))
        assert found.repeated() == Counted(len(again), sum(first[address] for address in again))
        assert {a: s for chunk in found.chunks() for a, s in zip(*chunk, strict=True)} == first

    @quick
    @given(additions)
    def test_a_union_of_unions_counts_what_several_of_them_have(
        self, lists: list[list[tuple[Address, int]]]
    ) -> None:
        every, expected = ObjectUnion(), dict[Address, list[int]]()
        for added in lists:
            one = ObjectUnion()
            one.add([address for address, _ in added], [size for _, size in added])
            every.add_all(one)
            for address, size in dict(reversed(added)).items():
                expected.setdefault(address, []).append(size)
        assert every.total() == Counted(len(expected), sum(sizes[0] for sizes in expected.values()))
        shared = [sizes[0] for sizes in expected.values() if len(sizes) > 1]
        assert every.repeated() == Counted(len(shared), sum(shared))
