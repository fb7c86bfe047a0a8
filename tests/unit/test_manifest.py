"""The manifest: every way in which a line can be wrong, and what is not wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, SnapshotId
from snapferry.stores.errors import IntegrityError, ManifestSyntaxError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import parse as manifest_module
from snapferry.stores.manifest.canonical import canonical
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest, parse

A = digest(b"a")
B = digest(b"b")


def line(kind: str = "F", mode: str = "644", checksum: str = A, size: str = "1", path: str = "./a") -> bytes:
    return f"{kind} {mode} {checksum} {size} {path}\n".encode()


def opened(text: bytes) -> Manifest:
    """Return the manifest *text*, filed under its own digest: only its form can be wrong."""
    return Manifest.from_bytes(SnapshotId(digest(text)), text)


GOOD = line(path="./0")

WRONG_LINES = {
    "empty": (b"\n", "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'"),
    "comment": (b"# made by hand\n", "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'"),
    "comment of many words": (b"# this was made by hand\n", "does not begin with F or D"),
    "one word": (b"word\n", "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'"),
    "four fields": (f"F 644 {A} 1\n".encode(), "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'"),
    "tabs for spaces": (line().replace(b" ", b"\t"), "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'"),
    "space in front": (b" " + line(), "does not begin with F or D"),
    "type in small letters": (line(kind="f"), "does not begin with F or D"),
    "type of two letters": (line(kind="FD"), "does not begin with F or D"),
    "no permissions": (line(mode=""), "has no PERMISSIONS"),
    "no checksum": (line(checksum=""), "has a CHECKSUM that is not 64 lowercase hex digits"),
    "checksum in capitals": (line(checksum=A.upper()), "has a CHECKSUM that is not 64 lowercase hex digits"),
    "checksum of 63 digits": (line(checksum=A[1:]), "has a CHECKSUM that is not 64 lowercase hex digits"),
    "checksum of 65 digits": (line(checksum=A + "0"), "has a CHECKSUM that is not 64 lowercase hex digits"),
    "checksum that climbs": (line(checksum="../" * 21 + "x"), "has a CHECKSUM that is not 64 lowercase hex digits"),
    "no size": (line(size=""), "has a SIZE that is not a number of bytes"),
    "negative size": (line(size="-1"), "has a SIZE that is not a number of bytes"),
    "size with a fraction": (line(size="1.5"), "has a SIZE that is not a number of bytes"),
    "size in other digits": (line(size="٣"), "has a SIZE that is not a number of bytes"),
    "size with leading zeros": (line(size="01"), "has a SIZE that is not a number of bytes"),
    "size of 65 bits": (line(size=str(2**64)), "has a SIZE of more than 64 bits"),
    "size of 5000 digits": (line(size="9" * 5000), "has a SIZE of more than 64 bits"),
    "no path": (line(path=""), "has no PATH"),
    "out of order": (line(path="."), "is out of order"),
    "not UTF-8": (b"F 644 " + A.encode() + b" 1 ./\xff\n", "is not UTF-8"),
    "half a character": (b"F 644 " + A.encode() + b" 1 ./\xc3\n", "is not UTF-8"),
    "a surrogate": (b"F 644 " + A.encode() + b" 1 ./\xed\xa0\x80\n", "is not UTF-8"),
    "cut short": (line(path="./aa")[:-1], "has no end"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_LINES)
@pytest.mark.parametrize("before", [1, 3])
def test_a_line_that_cannot_be_read_is_named_by_its_number(fault: str, before: int) -> None:
    wrong, said = WRONG_LINES[fault]
    text = GOOD * before + wrong

    with opened(text) as manifest, pytest.raises(ManifestSyntaxError) as raised:
        manifest.objects()

    assert raised.value.subject == digest(text)
    assert raised.value.detail.startswith(f"line {before + 1} of the manifest {said}")
    with opened(text) as manifest, pytest.raises(ManifestSyntaxError):
        list(manifest.entries())


def test_a_newline_inside_a_name_is_named_by_the_line_that_it_makes() -> None:
    said = r"line 3 of the manifest is not .*: 'lines'"
    with (
        opened(line(path="./a") + line(path="./two\nlines")) as manifest,
        pytest.raises(ManifestSyntaxError, match=said),
    ):
        manifest.objects()


def test_a_very_long_line_is_shown_in_part() -> None:
    with opened(b"x" * 10_000 + b"\n") as manifest, pytest.raises(ManifestSyntaxError) as raised:
        manifest.objects()

    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(("digits", "bits"), [(32, 128), (40, 160), (56, 224), (96, 384), (128, 512)])
def test_a_checksum_of_another_kind_is_an_integrity_error_that_says_so(digits: int, bits: int) -> None:
    with (
        opened(line(checksum="a" * digits)) as manifest,
        pytest.raises(IntegrityError, match=f"line 1 .* {bits} bits; only snapshots made with plain BLAKE3"),
    ):
        manifest.objects()


def test_a_manifest_of_no_bytes_is_refused_and_one_of_no_entries_is_not() -> None:
    with opened(b"") as manifest, pytest.raises(ManifestSyntaxError, match="is empty"):
        manifest.objects()
    with opened(b"\n") as manifest:
        assert (manifest.objects(), list(manifest.entries())) == ({}, [])


def test_a_path_may_hold_anything_but_a_newline() -> None:
    paths = [
        "./ ",
        "./  two",
        "./\t",
        "./\r",
        "./a\rb",
        "./#",
        "./\x0b\x0c\x1c\x85\u2028",
        "./F 644 x 1 y",
        "./e\u0301",
    ]
    entries = [Entry("F", "644", A, 1, path) for path in paths]

    assert sorted(parse(render(entries))) == sorted(entries)


@pytest.mark.parametrize("size", ["0", "9", "10", str(2**53 + 1), str(2**63), str(2**64 - 1)])
def test_a_size_may_be_any_number_of_64_bits(size: str) -> None:
    assert [entry.size for entry in parse(line(size=size))] == [int(size)]


def test_entries_are_sorted_by_the_bytes_of_their_paths() -> None:
    """Bytes, not characters of another alphabet, and not the rest of the line."""
    paths = ["./B", "./a", "./a-b", "./a/", "./a/x", "./ab", "./\u00e9", "./\uffff", "./\U0001f600"]
    kinds = ["F", "D"] * 5
    entries = [
        Entry(kind, mode, A, 1, path) for kind, mode, path in zip(kinds, "987654321", paths, strict=False)
    ]

    text = render(reversed(entries))

    assert [entry.path for entry in parse(text)] == paths
    assert canonical(b"".join(reversed(text.splitlines(keepends=True)))) == text


def test_folders_name_no_objects() -> None:
    text = line(kind="D", checksum=B, path="./") + line(checksum=A, path="./a")

    with opened(text) as manifest:
        assert manifest.objects() == {A: 1}


def test_where_sizes_differ_the_largest_counts_in_whatever_order() -> None:
    sizes = ["5", "4096", "0"]
    for turn in range(3):
        found = sizes[turn:] + sizes[:turn]
        text = b"".join(line(size=size, path=f"./{number}") for number, size in enumerate(found))
        with opened(text) as manifest:
            assert manifest.objects() == {A: 4096}


@pytest.mark.parametrize("size", [2**48 - 1, 2**48, 2**48 + 1, 2**64 - 1])
def test_a_size_that_no_object_can_have_is_planned_as_the_largest_possible(size: int) -> None:
    """The ledger adds sizes up in 64 bits; a manifest may claim 64 bits for a single one."""
    with opened(line(size=str(size))) as manifest:
        assert manifest.objects() == {A: min(size, LARGEST_PLANNED_BYTES)}
        assert [entry.size for entry in manifest.entries()] == [size]


def test_a_link_to_an_empty_file_lists_the_empty_object_with_a_size() -> None:
    text = line(mode="777", checksum=EMPTY_ADDRESS, size="4", path="./link")
    text += line(checksum=EMPTY_ADDRESS, size="0", path="./zero")

    with opened(text) as manifest:
        assert manifest.objects() == {EMPTY_ADDRESS: 4}


def test_objects_come_sorted_and_once() -> None:
    addresses = [digest(bytes([number])) for number in range(50)]
    text = render(
        Entry("F", "644", address, 1, f"./{n}/{address}") for n in range(2) for address in addresses
    )

    with opened(text) as manifest:
        assert list(manifest.objects()) == sorted(addresses)


def test_a_canonical_text_has_no_comments_no_empty_lines_one_order_and_one_end() -> None:
    one, two = line(path="./1"), line(path="./2")

    for text in (
        two + one,
        one + b"\n\n" + two,
        b"# x\n" + one + b"#\n" + two,
        one + two[:-1],
        b"\n" + one + two,
    ):
        assert canonical(text) == one + two
        assert snapshot_id(text) == digest(one + two)


def test_only_lines_that_begin_with_a_hash_are_comments() -> None:
    assert canonical(b" # x\n") == b" # x\n"
    assert canonical(line(path="#")) == line(path="#")


def test_a_carriage_return_does_not_end_a_line() -> None:
    text = line(path="./a\r")

    assert [entry.path for entry in parse(text)] == ["./a\r"]
    assert snapshot_id(text) != snapshot_id(line(path="./a"))


def test_a_text_that_hashes_only_in_canonical_form_is_read_and_handed_out_canonical() -> None:
    text = line(path="./1") + line(path="./2")
    stored = b"# a comment\n" + line(path="./2") + b"\n" + line(path="./1")

    with Manifest.from_bytes(snapshot_id(text), stored) as manifest:
        assert manifest.open().read(10_000) == text
        assert manifest.length == len(text)
        assert manifest.objects() == {A: 1}


def test_a_text_that_does_not_hash_to_its_id_is_refused_without_its_digest() -> None:
    text = line()

    with pytest.raises(IntegrityError, match="does not hash to its id") as raised:
        Manifest.read("a store", SnapshotId(B), io.BytesIO(text))

    assert (raised.value.store, raised.value.subject) == ("a store", B)
    assert digest(text) not in str(raised.value)


def test_a_text_too_large_to_be_made_canonical_must_hash_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = line(path="./1") + line(path="./2")
    monkeypatch.setattr(manifest_module, "CANONICALISE_BYTES", len(text))

    with Manifest.from_bytes(snapshot_id(text), text) as manifest:
        assert manifest.length == len(text)
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(snapshot_id(text), b"#\n" + text)


def test_a_manifest_larger_than_the_memory_it_may_take_is_read_from_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifest_module, "SPOOL_BYTES", 1000)
    text = render(Entry("F", "644", digest(b"%d" % n), n, f"./{n:06}") for n in range(1000))

    with Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest:
        assert manifest.open().read(len(text) + 1) == text
        assert len(manifest.objects()) == len(list(manifest.entries())) == 1000


class Failing:
    """A reader whose connection breaks after the first piece."""

    def __init__(self) -> None:
        self._parts: Iterator[bytes] = iter([line()])

    def read(self, size: int, /) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            raise ConnectionResetError from None


def test_a_manifest_whose_reading_broke_off_is_no_manifest() -> None:
    with pytest.raises(ConnectionResetError):
        Manifest.read("a store", SnapshotId(digest(line())), Failing())


def test_the_paths_of_some_objects_come_in_the_order_of_the_manifest() -> None:
    text = b"".join(
        [
            line("D", checksum=A, path="./"),
            line(path="./1"),
            line(checksum=B, path="./2"),
            line(path="./3 \u00fc"),
            line(checksum=EMPTY_ADDRESS, size="0", path="./4"),
        ]
    )

    with opened(text) as manifest:
        assert list(manifest.paths_of([A])) == [(A, "./1"), (A, "./3 \u00fc")]
        assert list(manifest.paths_of({B: 1, EMPTY_ADDRESS: 0})) == [(B, "./2"), (EMPTY_ADDRESS, "./4")]
        assert list(manifest.paths_of(())) == []


def test_paths_are_found_as_they_are_asked_for_whatever_else_is_read_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifest_module, "PIECE_BYTES", 1)
    text = b"".join(line(path=f"./{number:03}") for number in range(50))

    with opened(text) as manifest:
        paths = manifest.paths_of({A})
        found = [next(paths)]
        assert manifest.objects() == {A: 1}
        assert [*found, *paths] == [(A, f"./{number:03}") for number in range(50)]


@pytest.mark.parametrize("fault", WRONG_LINES)
def test_a_wrong_line_in_a_later_piece_is_named_by_its_number(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is wrong is said in the same words, by whichever way the lines are read."""
    monkeypatch.setattr(manifest_module, "PIECE_BYTES", 2 * len(GOOD))
    wrong, said = WRONG_LINES[fault]
    text = GOOD * 7 + wrong

    for read in (Manifest.objects, lambda manifest: list(manifest.paths_of({B}))):
        with opened(text) as manifest, pytest.raises(ManifestSyntaxError) as raised:
            read(manifest)
        assert raised.value.detail.startswith(f"line 8 of the manifest {said}")
