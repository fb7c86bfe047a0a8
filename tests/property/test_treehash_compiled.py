"""The compiled extension alone: every kernel of this CPU, large parts, and other threads meanwhile."""

from __future__ import annotations

import random
import sys
import threading
import time

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.treehash import digests, is_fast, reference, root, subtree
from snapferry.stores.treehash.pieces import one_by_one
from tests.property.strategies import quick


# Where it cannot be compiled there is no kernel. tests/unit/test_extension.py tells whether it must be there.
def kernels() -> range:
    if not is_fast():
        return range(0)
    from snapferry.stores.treehash import _blake3

    return range(len(_blake3.KERNELS))


@quick
@given(st.integers(1, 40_000), st.integers(0, 2**54 - 64), st.integers(0, 2**64))
@example(16 * 1024, 0, 0)
@example(17 * 1024, 2**32 - 8, 1)
@example(31 * 1024 + 1, 2**54 - 64, 2)
def test_every_kernel_hashes_as_the_reference_does(length: int, first_chunk: int, seed: int) -> None:
    data = random.Random(seed).randbytes(length)
    expected = reference.chaining_value(memoryview(data), first_chunk)
    for kernel in kernels():
        from snapferry.stores.treehash import _blake3

        # An address that is a multiple of nothing.
        moved = memoryview(b"x" + data)[1:]
        assert _blake3.chaining_value(moved, first_chunk, kernel) == expected, _blake3.KERNELS[kernel]


@quick
@given(st.integers(2, 300), st.integers(0, 2**64))
def test_every_kernel_merges_as_the_reference_does(number: int, seed: int) -> None:
    values = random.Random(seed).randbytes(32 * number)
    expected = reference.merged(values)
    for kernel in kernels():
        from snapferry.stores.treehash import _blake3

        assert _blake3.merged(values, kernel) == expected, _blake3.KERNELS[kernel]


LENGTHS = st.one_of(
    st.integers(0, 3000),
    st.integers(0, 70_000),
    st.sampled_from([n * 1024 + d for n in range(34) for d in (0, 1)]),
)


@quick
@given(st.lists(st.none() | LENGTHS, max_size=70), st.integers(0, 2**64))
@example([0], 0)
@example([4096] * 64, 1)
@example([*range(0, 2100, 60), None, 65 * 1024], 2)
def test_pieces_hash_as_one_by_one_whatever_lies_beside_them(lengths: list[int | None], seed: int) -> None:
    rng = random.Random(seed)
    pieces = [None if length is None else rng.randbytes(length) for length in lengths]
    expected = one_by_one(pieces)
    assert digests(pieces) == expected
    for kernel in kernels():
        from snapferry.stores.treehash import _blake3

        assert _blake3.digests(pieces, kernel) == expected, _blake3.KERNELS[kernel]


@quick
@given(st.lists(LENGTHS.filter(lambda length: length < 6000), max_size=3), st.integers(0, 2**64))
@example([0, 1, 1023, 1024, 1025, 2048, 2049, 3 * 1024, 5 * 1024 + 1], 0)
def test_the_reference_hashes_pieces_as_the_package_does(lengths: list[int], seed: int) -> None:
    rng = random.Random(seed)
    pieces = [*(rng.randbytes(length) for length in lengths), None]
    assert reference.digests(pieces) == one_by_one(pieces)


def test_the_extension_checks_its_arguments_itself() -> None:
    if not is_fast():
        return
    from snapferry.stores.treehash import _blake3

    for wrong in (
        lambda: _blake3.chaining_value(memoryview(b""), 0),
        lambda: _blake3.chaining_value(memoryview(b"x"), 0, -1),
        lambda: _blake3.chaining_value(memoryview(b"x"), 0, len(_blake3.KERNELS)),
        lambda: _blake3.merged(b""),
        lambda: _blake3.merged(bytes(32)),
        lambda: _blake3.merged(bytes(65)),
        lambda: _blake3.merged(bytes(64), 99),
        lambda: _blake3.digests([b""], 99),
    ):
        with pytest.raises(ValueError, match=r"range|kernel|values"):
            wrong()
    for piece in ("text", bytearray(1), 1):
        with pytest.raises(TypeError):
            _blake3.digests([b"", piece])  # type: ignore[list-item]
    with pytest.raises(BufferError):
        _blake3.chaining_value(memoryview(bytes(4))[::2], 0)


def test_parts_up_to_16_mib_make_the_digest() -> None:
    """Where nothing is compiled, the parts are small, because the reference needs a second for each MiB."""
    powers = (20, 22, 24) if is_fast() else (15, 16)
    data = random.Random(0).randbytes(2 ** powers[-1] * 2 + 1)
    for power in powers:
        part_bytes = 2**power
        for length in (part_bytes + 1, 2 * part_bytes - 1, 2 * part_bytes, 2 * part_bytes + 1):
            view = memoryview(data)[:length]
            values = [subtree(view[at : at + part_bytes], at) for at in range(0, length, part_bytes)]
            assert root(values, part_bytes) == blake3(view).hexdigest(), (length, part_bytes)


def test_other_threads_run_while_a_range_is_hashed() -> None:
    data = bytes(2**25 if is_fast() else 2**15)
    turns = 0
    interleaved = threading.Event()

    def work() -> None:
        for _ in range(500):
            before = turns
            subtree(data, 0)
            if turns > before:
                interleaved.set()
                break

    interval = sys.getswitchinterval()
    # Longer than a range takes. So only a thread that gives the interpreter lock away lets the other one run.
    sys.setswitchinterval(60 if is_fast() else interval)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            turns += 1
            time.sleep(0)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert interleaved.is_set()
