"""The compiled reader of manifests gives what the Python code gives, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.bulk.tables import records_of
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import lines, parse
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.manifest.lines import Columns, read_digests, read_plainly, read_records
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest
from snapferry.stores.manifest.plain_lines import columns
from tests.property.strategies import entry_lists, paths, thorough

# Where it cannot be compiled, the Python code reads all. tests/unit/test_extension.py tells whether it must be there.
IS_COMPILED = read_records(f"F 644 {'0' * 64} 1 ./a\n".encode(), "", 0) is not None

FIELDS = [
    st.sampled_from(["F", "F", "D", "X", "", "FD"]),
    st.sampled_from(["644", "7", "", "+x", "é", "a\tb", "a\rb", "a\u2028b", "\0"]),
    st.sampled_from(
        ["0" * 64, "9af" + "e" * 61, "A" * 64, "0" * 63, "0" * 65, "é" * 64, "é" * 32, "g" * 64, ""]
    ),
    st.sampled_from(
        ["0", "7", "00", "01", "9" * 19, "9" * 20, str(2**63), "", "-1", "+1", "1_0", "٣", "1\r"]
    ),
    st.one_of(
        paths, st.sampled_from(["", " ", "./a", "./a/", "./é", "./\ud7ff", "./\ue000", "./\U00010000"])
    ),
]
usual = st.builds(
    lambda kind, mode, checksum, size, path: f"{kind} {mode:o} {checksum} {size} {path}\n",
    st.sampled_from("FFFD"),
    st.integers(0, 0o7777),
    st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"),
    st.integers(0, 10**19 - 1),
    paths,
)
unusual = st.tuples(*FIELDS).map(lambda fields: " ".join(fields) + "\n")
whole = st.lists(usual, max_size=8).map(
    lambda found: "".join(sorted(found, key=lambda line: line.split(" ", 4)[4].encode())).encode()
)
some = st.lists(st.one_of(usual, unusual), max_size=4).map("".join).map(str.encode)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    text = draw(whole)
    at = draw(st.integers(0, len(text)))
    cut = draw(st.integers(0, 3))
    return text[:at] + draw(st.binary(max_size=3)) + text[at + cut :]


@thorough
@given(st.one_of(whole, some, damaged(), st.binary(max_size=40)), st.one_of(st.just(""), paths))
@example(b"", "")
@example(b"\n", "")
@example(f"F 644 {'0' * 64} 1 ./a\xff\n".encode("latin-1"), "")
@example(f"F \xff {'0' * 64} 1 ./a\n".encode("latin-1"), "")
@example(f"F 644 {'0' * 64} 1 ./\ud800\n".encode(errors="surrogatepass"), "")
@example(f"F 644 {'0' * 64} 1 ./a\n".encode(), "./a")
@example(f"F 644 {'0' * 64} 1 ./a\n".encode(), "./b")
@example(f"F 644 {'0' * 64} 1 ./a\n".encode(), "./a\0")
@example(f"F 644 {'0' * 64} 1 ./a\n".encode(), "\ud800")
def test_the_extension_reads_the_same_lines(piece: bytes, last: str) -> None:
    if not IS_COMPILED:
        return
    # Paths that were read can be encoded. With another one, no line is plain.
    last_is_text = not any("\ud800" <= character <= "\udfff" for character in last)
    expected = columns(piece, last) if last_is_text else None

    assert read_plainly(piece, last) == expected
    records, digests = read_records(piece, last, LARGEST_PLANNED_BYTES), read_digests(piece, last)
    if expected is None:
        assert records is digests is None
        return
    files = Columns(*expected).files()
    sizes = list(files.sizes(LARGEST_PLANNED_BYTES))
    assert records == (records_of(files.checksums, sizes), expected[-1][-1])
    assert digests == (bytes.fromhex("".join(files.checksums)), expected[-1][-1])


def answers(text: bytes) -> list[object]:
    """What each way of reading a manifest gives, or the error that it raises."""

    def of(read: Callable[[Manifest], object]) -> object:
        try:
            with Manifest.from_bytes(digest(text), text) as manifest:  # type: ignore[arg-type]
                return read(manifest)
        except StoreError as error:
            return type(error), str(error)

    def rows(manifest: Manifest) -> object:
        return [row for found in manifest.lines() for row in zip(*found, strict=True)]

    def table(manifest: Manifest) -> object:
        found = manifest.table()
        return found.digests.tobytes(), found.sizes.tolist()

    def addresses(manifest: Manifest) -> object:
        return list(chain.from_iterable(manifest.addresses().chunks(1000)))

    return [of(rows), of(table), of(addresses), of(Manifest.objects)]


@given(
    st.one_of(entry_lists.map(render), damaged(), some), st.sampled_from([1, 200, 64 * 1024]), st.booleans()
)
@example(render([Entry("D", "755", digest(b""), 0, "./")]), 1, True)
def test_a_manifest_is_read_alike_with_the_extension_and_without(
    text: bytes, piece_bytes: int, is_large: bool
) -> None:
    found = []
    for without in (False, True):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(parse, "PIECE_BYTES", piece_bytes)
            patched.setattr(parse, "LARGE_BYTES", 0 if is_large else parse.LARGE_BYTES)
            if without:
                patched.setattr(lines, "_columns", columns)
                patched.setattr(lines, "_records", None)
            found.append(answers(text))

    assert found[0] == found[1]


def test_only_bytes_and_text_are_read() -> None:
    if not IS_COMPILED:
        return
    extension = import_module("snapferry.stores.manifest._lines")
    for wrong in [lambda: extension.columns("text", ""), lambda: extension.columns(b"", b"")]:
        with pytest.raises(TypeError):
            wrong()
