"""Laws of the manifest: what is written can be read, and what cannot be read does no harm."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable
from itertools import accumulate
from typing import Any
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import Address, SnapshotId, addresses_in, manifest_key, parse_snapshot_id
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.bulk import forked
from snapferry.stores.bulk.forked import Forked
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import parse as manifest_module
from snapferry.stores.manifest.canonical import canonical
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest, parse
from snapferry.stores.snapshot_store import SnapshotStore
from tests.property.strategies import addresses, entry_lists, quick, strangers_between_lines, thorough

is_address = re.compile(r"[0-9a-f]{64}").fullmatch


def by_path(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.path.encode())


@thorough
@given(entry_lists)
def test_what_was_rendered_is_parsed_back_in_the_order_of_the_paths(entries: list[Entry]) -> None:
    assert parse(render(entries)) == by_path(entries)


@quick
@given(entry_lists)
def test_rendering_is_canonical_and_its_digest_is_the_id(entries: list[Entry]) -> None:
    text = render(entries)

    assert canonical(text) == text
    assert snapshot_id(text) == digest(text)
    assert text.endswith(b"\n")


@thorough
@given(
    entry_lists,
    st.lists(strangers_between_lines, max_size=5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_the_id_does_not_depend_on_order_comments_empty_lines_or_the_last_line_end(
    entries: list[Entry], strangers: list[bytes], random_: random.Random, ended: bool
) -> None:
    text = render(entries)
    lines = [line for line in text.split(b"\n") if line] + strangers
    random_.shuffle(lines)
    altered = b"\n".join(lines) + (b"\n" if ended else b"")

    assert snapshot_id(altered) == snapshot_id(text)
    assert parse(altered) == parse(text)
    with Manifest.from_bytes(snapshot_id(text), altered) as manifest:
        assert manifest.open().read(manifest.length) == text


@quick
@given(entry_lists)
def test_the_objects_are_the_distinct_checksums_of_files_each_with_its_largest_size(
    entries: list[Entry],
) -> None:
    files = [entry for entry in entries if entry.type == "F"]
    text = render(entries)

    with Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest:
        objects = manifest.objects()

    largest = {f.checksum: max(g.size for g in files if g.checksum == f.checksum) for f in files}
    assert objects == {address: min(size, LARGEST_PLANNED_BYTES) for address, size in largest.items()}


# Pieces that a hostile or broken text is made of: parts of lines, separators, digests of other kinds, junk.
pieces = st.one_of(
    st.sampled_from(
        [b" ", b"  ", b"\n", b"\r\n", b"#", b"F", b"D", b"L", b"F 644 ", b"D 755 ", b"/", b"../" * 9]
    ),
    st.sampled_from([b"0", b"-1", b"007", b"9" * 20, b"9" * 5000, b"1e3", b"\xd9\xa3", b"a" * 64, b"A" * 64]),
    st.sampled_from(
        [b"a" * 63, b"a" * 65, b"d" * 32, b"e" * 128, b"a" * 63 + b"\n", b" 5 ./x\n", b"\xff\xfe", b"\0"]
    ),
    st.binary(max_size=6),
)


@st.composite
def damaged_manifests(draw: st.DrawFn) -> bytes:
    """Return a good manifest with one piece of it replaced by something else, or nothing good at all."""
    if draw(st.booleans()):
        return b"".join(draw(st.lists(pieces, max_size=14)))
    text = render(draw(entry_lists))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 80)))
    return text[:start] + draw(pieces) + text[end:]


def read_all(text: bytes, snapshot: str) -> tuple[list[Entry], dict[Address, int]]:
    backend = MemoryBackend()
    backend.write(manifest_key(parse_snapshot_id(snapshot)), text)
    with SnapshotStore(backend).read_manifest(snapshot) as manifest:
        return list(manifest.entries()), manifest.objects()


@thorough
@given(damaged_manifests())
@example(b"")
@example(b"\n")
@example(b"F 644 " + b"a" * 64 + b" " + b"9" * 5000 + b" ./x\n")
@example("F 644 {} 9 ./é".format("a" * 64).encode())
def test_a_hostile_manifest_raises_a_store_error_or_names_nothing_but_addresses(text: bytes) -> None:
    """Filed under its own digest, or under the id of its canonical form, so that its hash does not give it away."""
    for snapshot in (digest(text), snapshot_id(text)):
        try:
            entries, objects = read_all(text, snapshot)
        except StoreError:
            continue
        assert all(map(is_address, objects))
        assert objects.keys() == {entry.checksum for entry in entries if entry.type == "F"}
        assert all(0 <= size <= LARGEST_PLANNED_BYTES for size in objects.values())
        assert render(entries) == canonical(text)


@quick
@given(entry_lists.filter(bool), st.data())
def test_a_manifest_with_any_byte_altered_is_not_used(entries: list[Entry], data: st.DataObject) -> None:
    text = render(entries)
    at = data.draw(st.integers(0, len(text) - 1))
    altered = text[:at] + bytes([text[at] ^ data.draw(st.integers(1, 255))]) + text[at + 1 :]
    try:
        found = read_all(altered, digest(text))
    except StoreError:
        return
    # Only a change that the canonical form takes back may pass.
    assert canonical(altered) == text
    assert found[0] == by_path(entries)


def outcome(read: Callable[[], object]) -> object:
    """Return what *read* returns, or the kind and the words of its error."""
    try:
        return read()
    except StoreError as error:
        return type(error), str(error)


# Lines with several sizes for one object, and a D line with an object's checksum.
@st.composite
def repetitive_manifests(draw: st.DrawFn) -> bytes:
    known = draw(st.lists(addresses, min_size=1, max_size=3, unique=True))
    entries = draw(entry_lists)
    return render(entry._replace(checksum=draw(st.sampled_from(known))) for entry in entries)


@thorough
@given(
    st.one_of(damaged_manifests(), repetitive_manifests(), entry_lists.map(render)),
    st.sampled_from([1, 60, 100, 150, 300, 65536]),
)
@example(b"\n", 1)
@example(render([Entry("F", "644", "a" * 64, 2**64 - 1, "./a"), Entry("F", "644", "a" * 64, 5, "./b")]), 1)
@example(b"F 644 " + b"a" * 64 + b" 00 ./a\n", 65536)
@example(b"F 644 " + b"a" * 64 + b" 0 ./b\nF 644 " + b"a" * 64 + b" 0 ./a\n", 1)
@example(b"D 755 x 0 ./\n", 65536)
def test_lines_read_by_the_piece_and_one_by_one_tell_the_same_or_fail_the_same(
    text: bytes, piece: int
) -> None:
    """Whatever the pieces: the entries are read one by one, the objects and the paths by pieces."""
    with (
        Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest,
        patch.object(manifest_module, "PIECE_BYTES", piece),
    ):

        def files() -> list[Entry]:
            return [entry for entry in manifest.entries() if entry.type == "F"]

        def objects_of_files() -> list[tuple[str, int]]:
            largest: dict[str, int] = {}
            for file in files():
                largest[file.checksum] = max(
                    largest.get(file.checksum, 0), min(file.size, LARGEST_PLANNED_BYTES)
                )
            return list(largest.items())

        assert outcome(lambda: list(manifest.objects().items())) == outcome(objects_of_files)
        try:
            wanted = {file.checksum for file in files()[::2]}
        except StoreError:
            wanted = {"a" * 64}
        found = outcome(lambda: list(manifest.paths_of(wanted)))
        assert found == outcome(lambda: [(f.checksum, f.path) for f in files() if f.checksum in wanted])


@thorough
@given(
    st.one_of(damaged_manifests(), repetitive_manifests(), entry_lists.map(render)),
    st.sampled_from([150, 300, 65536]),
    st.sampled_from([1, 100, 400]),
    st.booleans(),
    st.booleans(),
)
@example(b"\n", 300, 1, False, False)
def test_several_processes_read_a_manifest_as_one_does_or_fail_as_one_does(
    text: bytes, piece: int, share: int, spooled: bool, killed: bool
) -> None:
    """In memory or in a file, and whatever becomes of the other processes."""

    def killing(*arguments: Any, **named: Any) -> Forked:
        process = Forked(*arguments, **named)
        os.kill(process._process, signal.SIGKILL)
        return process

    with (
        patch.object(manifest_module, "SPOOL_BYTES", 0 if spooled else len(text)),
        Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest,
        patch.object(manifest_module, "PIECE_BYTES", piece),
        patch.object(manifest_module, "LARGE_BYTES", 0),
        patch.object(manifest_module, "BYTES_FOR_A_PROCESS", share),
        patch.object(manifest_module, "Forked", killing if killed else Forked),
        patch.object(forked, "_cores", lambda: 3),
    ):

        def table() -> list[tuple[str, int]]:
            found = manifest.table()
            return list(zip(addresses_in(found.digests.tobytes()), found.sizes.tolist(), strict=True))

        assert outcome(table) == outcome(lambda: sorted(manifest.objects().items()))
        named = outcome(lambda: [one for chunk in manifest.addresses().chunks(7) for one in chunk])
        assert named == outcome(lambda: sorted(manifest.objects()))


def test_a_large_manifest_is_cut_at_ends_of_lines_for_as_many_as_there_are_cores() -> None:
    text = render(Entry("F", "644", digest(b"%d" % n), n, f"./{'x' * (n % 90)}{n:06}") for n in range(2000))

    with (
        Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest,
        patch.object(manifest_module, "BYTES_FOR_A_PROCESS", 1000),
        patch.object(forked, "_cores", lambda: 5),
    ):
        parts = manifest._parts()

    lines = text.splitlines(keepends=True)
    ends = [0, *accumulate(map(len, lines))]
    assert len(parts) == 5
    assert [begin for begin, _, _ in parts[1:]] == [end for _, end, _ in parts[:-1]]
    assert parts[-1][1] == len(text)
    for begin, _, before in parts[1:]:
        assert before == lines[ends.index(begin) - 1].split(b" ", 4)[4].decode().rstrip("\n")


@quick
@given(entry_lists.filter(lambda entries: all(entry.size < 10**19 for entry in entries)).filter(bool))
def test_nearly_every_manifest_is_read_without_a_look_at_its_single_lines(entries: list[Entry]) -> None:
    text = render(entries)

    with (
        Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest,
        patch.object(manifest_module, "read_fields", side_effect=AssertionError("looked at single lines")),
    ):
        assert manifest.objects().keys() == {entry.checksum for entry in entries if entry.type == "F"}
