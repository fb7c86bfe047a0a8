"""BLAKE3 in parts: whatever the parts, their chaining values make the digest that the `blake3` package gives."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import Address
from snapferry.stores.treehash import is_fast, reference, root, subtree, tree
from tests.property.strategies import quick

CHUNK = 1024


@pytest.fixture(params=["compiled", "reference"], scope="module")
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each implementation in turn. The compiled one is there unless this machine cannot compile it."""
    if request.param == "reference":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree, "_compiled", False)
            patch.setattr(tree, "chaining_value", reference.chaining_value)
            patch.setattr(tree, "merged", reference.merged)
            assert not is_fast()
            yield request.param
    else:
        yield request.param


def content(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def digest(data: bytes) -> Address:
    return Address(blake3(data).hexdigest())


def in_parts(data: bytes, part_bytes: int) -> Address:
    view = memoryview(data)
    values = [subtree(view[at : at + part_bytes], at) for at in range(0, len(data), part_bytes)]
    return root(values, part_bytes)


# Lengths around every boundary of chunks and blocks up to 33 chunks, then some of larger objects.
edges = sorted(
    {
        chunks * CHUNK + more
        for chunks in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33)
        for more in (-65, -64, -63, -1, 0, 1, 63, 64, 65)
    }
)


@pytest.mark.parametrize("part_bytes", [1024, 2048, 4096, 16384])
def test_parts_of_any_size_make_the_digest_at_every_boundary(implementation: str, part_bytes: int) -> None:
    # The reference takes a second for each MiB.
    step = 1 if implementation == "compiled" and is_fast() else 7
    lengths = [length for length in edges if length > part_bytes][::step]
    assert {length: in_parts(content(length), part_bytes) for length in lengths} == {
        length: digest(content(length)) for length in lengths
    }


@pytest.mark.parametrize("part_bytes", [2**15, 2**16])
def test_larger_parts_make_the_digest(implementation: str, part_bytes: int) -> None:
    for length in (part_bytes + 1, 2 * part_bytes, 2 * part_bytes + 1025, 3 * part_bytes - 1):
        assert in_parts(content(length), part_bytes) == digest(content(length)), length


@quick
@given(st.integers(1025, 40_000), st.sampled_from([1024, 2048, 4096, 8192]))
@example(40_000, 1024)
def test_any_length_makes_the_digest(implementation: str, length: int, part_bytes: int) -> None:
    if length <= part_bytes:
        part_bytes = 1024
    assert in_parts(content(length), part_bytes) == digest(content(length))


@quick
@given(st.integers(2, 600), st.integers(10, 24), st.integers(0, 2**64))
def test_values_of_parts_are_merged_by_any_process_alike(number: int, power: int, seed: int) -> None:
    """The tree of the values alone, whatever they are."""
    source = random.Random(seed)
    values = [source.randbytes(32) for _ in range(number)]
    assert root(values, 2**power) == reference.merged(b"".join(values)).hex()


@pytest.mark.parametrize("offset", [0, 2**20, 2**40, 2**63, 2**64 - 2**15])
def test_both_implementations_agree_anywhere_in_an_object(offset: int) -> None:
    for length in (1, 64, 65, 1023, 1024, 1025, 2049, 5000, 16384, 17 * 1024 + 1, 2**15):
        data = content(length)
        assert subtree(data, offset) == reference.chaining_value(memoryview(data), offset // CHUNK), length


@pytest.mark.parametrize(
    "data", [bytearray(b"x" * 3000), memoryview(b"x" * 3000), memoryview(b"x" * 4000).cast("I")]
)
def test_any_buffer_is_hashed(implementation: str, data: bytearray | memoryview) -> None:
    assert subtree(data, 4096) == subtree(bytes(data), 4096)


@pytest.mark.parametrize(
    ("length", "offset"),
    [
        (0, 0),
        (0, 1024),
        (1, 1),
        (1, 1023),
        (1, -1024),
        (1, 2**64),
        (1024, 512),
        (1025, 1024),
        (2049, 2048),
        (2**20 + 1, 2**20),
        (1025, -2048),
        (1024, 2**70),
    ],
)
def test_what_is_no_part_of_an_object_is_refused(implementation: str, length: int, offset: int) -> None:
    with pytest.raises(ValueError, match="a range"):
        subtree(bytes(length), offset)


def test_bytes_that_are_not_contiguous_are_refused(implementation: str) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        subtree(memoryview(bytes(4096))[::2], 0)


@pytest.mark.parametrize(
    "values", [[], [bytes(32)], [bytes(32), bytes(31)], [bytes(33), bytes(31)], [b"", bytes(32)]]
)
def test_values_that_are_not_32_bytes_or_fewer_than_two_are_refused(
    implementation: str, values: list[bytes]
) -> None:
    with pytest.raises(ValueError, match=r"parts|32 bytes"):
        root(values, 1024)


@pytest.mark.parametrize("part_bytes", [-1024, 0, 1, 512, 1023, 1025, 3072, 2**64])
def test_sizes_of_parts_that_are_no_power_of_two_are_refused(implementation: str, part_bytes: int) -> None:
    with pytest.raises(ValueError, match="parts"):
        root([bytes(32)] * 2, part_bytes)
