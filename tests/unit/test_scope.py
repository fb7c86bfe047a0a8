"""The part of the address space that a job looks at, in both forms in which objects are gathered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.planning.scope import within
from snapferry.stores.address import ADDRESS_LENGTH, Address
from snapferry.stores.bulk.tables import ObjectTable, ObjectTableBuilder, records_of
from snapferry.workers.messages import Scope

_starts = st.text("0123456789abcdef", max_size=5)
_addresses = st.text("0123456789abcdef", min_size=6, max_size=6).map(
    lambda head: Address(head + "0" * (ADDRESS_LENGTH - 7) + "1")
)


@given(
    st.dictionaries(_addresses, st.integers(0, 2**43), max_size=30),
    _starts,
    _starts,
    st.integers(1, 5).flatmap(lambda of: st.tuples(st.just(of), st.integers(0, of - 1))),
)
def test_a_table_and_a_mapping_have_the_same_objects_in_scope(
    objects: dict[Address, int], first: str, last: str, sample: tuple[int, int]
) -> None:
    scope = Scope(first=first, last=last, samples=sample[0], sample=sample[1])
    builder = ObjectTableBuilder(100)
    builder.add(records_of(list(objects), objects.values()))

    found = within(scope, objects)
    table = within(scope, builder.finish())

    assert isinstance(found, dict)
    assert isinstance(table, ObjectTable)
    digests = table.digests.tobytes()
    assert digests.hex() == "".join(sorted(found))


@given(st.dictionaries(_addresses, st.integers(0, 9), max_size=30), st.integers(1, 5), _starts)
def test_samples_and_ranges_divide_the_objects(objects: dict[Address, int], of: int, border: str) -> None:
    samples = [within(Scope(samples=of, sample=sample), objects) for sample in range(of)]
    assert sorted(address for sample in samples for address in sample) == sorted(objects)

    below = within(Scope(last=border), objects)
    rest = {address for address in objects if address not in below}
    assert all(address[: len(border)] > border for address in rest)
