"""Laws of known lines: whatever earlier manifests had, the answers are those of each manifest alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.orchestrator.planning.planner import Planner
from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import known_lines
from snapferry.stores.manifest.known_lines import KnownLines, NamedObjects
from snapferry.stores.manifest.lines import read_plainly
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest
from tests.property.strategies import thorough

# So few that manifests have many lines in common, and several sizes of one object.
ADDRESSES = [digest(b"%d" % number) for number in range(4)]
SIZES = ["0", "7", "70", str(LARGEST_PLANNED_BYTES + 5), str(2**64 - 1)]
PATHS = ["./", "./a", "./a b", "./a\r", "./a 00", "./dir/", "./dir/x", "./\u2028", "./é", "./\U0001f600", " "]

right_lines = st.builds(
    lambda kind, address, size, path: f"{kind} 644 {address} {size} {path}".encode(),
    st.sampled_from("FFFD"),
    st.sampled_from(ADDRESSES),
    st.sampled_from(SIZES),
    st.sampled_from(PATHS),
)
odd_lines = st.sampled_from(
    [
        b"",
        b"# a comment",
        b"\r",
        b"F 644",
        b"X 644 %b 1 ./a" % ADDRESSES[0].encode(),
        b"F 644 %b 01 ./a" % ADDRESSES[0].encode(),
        b"F 644 %b 99999999999999999999 ./a" % ADDRESSES[0].encode(),
        b"F 644 %b 1 ./\xff" % ADDRESSES[0].encode(),
        b"F 644 %b 1 " % ADDRESSES[0].encode(),
        b"F 644 %b 1 ./a" % ADDRESSES[0].upper().encode(),
        b"F 644 d41d8cd98f00b204e9800998ecf8427e 1 ./a",
        b"D 755 - 1 ./dir/",
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Return texts of manifests, most of them an earlier one with lines more, less, odd, twice, or out of order."""
    found: list[bytes] = []
    lines: list[bytes] = []
    for _ in range(draw(st.integers(1, 8))):
        left = draw(st.sets(st.integers(0, 12)))
        lines = [line for at, line in enumerate(lines) if at not in left]
        lines += draw(st.lists(right_lines, max_size=6))
        lines.sort(key=lambda line: line.split(b" ", 4)[4])
        this = list(lines)
        for odd in draw(st.lists(odd_lines | right_lines, max_size=1)):
            this.insert(draw(st.integers(0, len(this))), odd)
        end = draw(st.sampled_from([b"\n"] * 7 + [b""]))
        found.append(b"\n".join(this) + end)
    return found


@contextmanager
def small(most_bytes: int, piece_bytes: int) -> Iterator[None]:
    """Let every line be in the sample, and the bounds be small."""
    with ExitStack() as stack:
        changes = {"_SAMPLED": b" ", "MOST_BYTES": most_bytes, "PIECE_BYTES": piece_bytes}
        for name, value in changes.items():
            stack.enter_context(patch.object(known_lines, name, value))
        yield


def answers(texts: list[bytes], ask: Callable[[Manifest], Any]) -> list[Any]:
    """Return what *ask* returns for each of *texts*, or its error."""
    found: list[Any] = []
    for text in texts:
        with Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest:
            try:
                found.append(ask(manifest))
            except StoreError as error:
                found.append((type(error), str(error)))
    return found


def in_order(objects: dict[Address, int]) -> list[tuple[Address, int]]:
    return list(objects.items())


A = b"F 644 %b 5 ./a\n" % ADDRESSES[0].encode()
B = b"F 644 %b 9 ./b\n" % ADDRESSES[0].encode()
C = b"F 644 %b 9 ./c\n" % ADDRESSES[1].encode()
bounds = st.sampled_from([0, 100, 400, 10**6])


@thorough
@given(histories(), bounds, st.sampled_from([1, 100, 200, 10**6]))
@example([A + B, A + B, B + A, A + b"\n" + B, A + B[:-1], b"\n", b"", A + A + B], 10**6, 100)
@example([A + B, A + B, B, A + B, B + b"D 755 - 1 ./c\n", B], 100, 1)
@example([A + B, A + B, B + A], 10**6, 10**6)
@example([A + B, A + B, A + B + C, A + B, A + C], 200, 10**6)
def test_objects_order_sizes_and_errors_are_those_of_each_manifest(
    texts: list[bytes], most_bytes: int, piece_bytes: int
) -> None:
    with small(most_bytes, piece_bytes):
        known = KnownLines()
        found = answers(texts, lambda manifest: in_order(known.objects(manifest)))

        assert found == answers(texts, lambda manifest: in_order(manifest.objects()))
        assert known.length <= most_bytes


@thorough
@given(histories(), bounds, st.sampled_from([1, 100, 200, 10**6]))
@example([A, A, A + b"\n", B + A, B], 10**6, 100)
@example([A + B, A + B, B + A, A + C + B, C], 10**6, 10**6)
def test_all_objects_that_manifests_name_are_found_and_errors_are_the_same(
    texts: list[bytes], most_bytes: int, piece_bytes: int
) -> None:
    usual = AddressSet()
    with small(most_bytes, piece_bytes):
        named = NamedObjects()

        assert answers(texts, named.add) == answers(texts, lambda manifest: manifest.add_addresses(usual))
        assert list(named.addresses.chunks(10**6)) == list(usual.chunks(10**6))


@thorough
@given(histories(), bounds)
def test_the_plan_is_the_same(texts: list[bytes], most_bytes: int) -> None:
    def plan_of(objects: Callable[[Manifest], dict[Address, int]]) -> tuple[object, ...]:
        planner = Planner(max_objects=2, max_bytes=100)
        for index, found in enumerate(answers(texts, objects)):
            if isinstance(found, dict):
                planner.add(index, found)
        plan = planner.finish()
        columns = (plan.digests, plan.sizes, plan.owners, plan.firsts)
        return plan.groups, plan.snapshots, *map(bytes, columns)

    with small(most_bytes, 200):
        assert plan_of(KnownLines().objects) == plan_of(Manifest.objects)


def lines_parsed(patched: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of lines of each piece that is parsed to be known."""
    found: list[int] = []

    def counting(piece: bytes, last: str) -> object:
        found.append(piece.count(b"\n"))
        return read_plainly(piece, last)

    patched.setattr(known_lines, "read_plainly", counting)
    return found


def text_of(numbers: list[int]) -> bytes:
    return b"".join(
        b"F 644 %b 5 ./%06d\n" % (digest(b"%d" % number).encode(), at) for at, number in enumerate(numbers)
    )


def test_only_new_lines_of_repeated_manifests_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are: here each manifest changes one line in a hundred, all over its paths."""
    texts, numbers = [], list(range(3000))
    for round_ in range(10):
        texts.append(text_of(numbers))
        for at in range(round_, 3000, 100):
            numbers[at] += 10_000
    parsed = lines_parsed(monkeypatch)
    known = KnownLines()

    found = answers(texts, known.objects)

    assert found == answers(texts, Manifest.objects)
    assert sum(parsed) == 3000 + 8 * 30


def test_lines_of_manifests_that_share_none_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text_of(list(range(first, first + 3000))) for first in range(0, 15_000, 3000)]
    parsed = lines_parsed(monkeypatch)
    known = KnownLines()

    answers(texts, known.objects)

    assert (parsed, known.length) == ([], 0)


def test_lines_of_a_large_manifest_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.stores.manifest.parse.LARGE_BYTES", 1000)
    known = KnownLines()

    answers([text_of(list(range(3000)))] * 3, known.objects)

    assert known.length == 0


def test_a_line_counts_as_known_only_when_its_object_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error between the two must not leave an object unasked for before a manifest is published."""
    text = text_of(list(range(3000)))
    named = NamedObjects()
    answers([text], named.add)
    named.addresses = AddressSet()
    with monkeypatch.context() as patched:
        patched.setattr(AddressSet, "update", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            answers([text], named.add)

    answers([text], named.add)

    assert len(named.addresses) == 3000
