"""What is checked and planned many lines at a time is what one line after the other gives."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.planning.trees.file_planner import FilePlanner
from snapferry.stores.address import are_addresses, parse_address
from snapferry.stores.errors import InvalidAddress, ManifestSyntaxError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import parse
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.manifest.tree_entries import TreeEntry, tree_entries
from snapferry.stores.manifest.tree_lines import tree_columns
from snapferry.workers.messages.files import file_of, files_of, line_of, lines_of

NAMES = ["a", "a-b", "b", "a.b", "c" * 70, "é"]

paths_below = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
listed = st.lists(
    st.tuples(st.sampled_from("FFD"), paths_below, st.sampled_from(["644", "0755", "7777"])), max_size=25
)


def entries_of(found: list[tuple[str, str, str]]) -> list[Entry]:
    entries = {f"./{path}/" if kind == "D" else f"./{path}": (kind, mode) for kind, path, mode in found}
    lines = [Entry("D", "755", digest(b""), 0, "./")]
    return lines + [
        Entry(kind, mode, digest(path.encode()), len(path), path)
        for path, (kind, mode) in sorted(entries.items(), key=lambda entry: entry[0].encode())
    ]


@given(listed, st.sampled_from([1, 300, 64 * 1024]))
def test_nothing_is_below_a_file_however_the_manifest_is_cut(
    found: list[tuple[str, str, str]], piece_bytes: int
) -> None:
    entries = entries_of(found)
    text = render(entries)
    files = [entry.path for entry in entries if entry.type == "F"]
    nested = any(entry.path.startswith(f"{file}/") for file in files for entry in entries)
    with (
        mock.patch.object(parse, "PIECE_BYTES", piece_bytes),
        Manifest.from_bytes(snapshot_id(text), text) as manifest,
    ):
        if nested:
            with pytest.raises(ManifestSyntaxError, match="which is a file"):
                list(tree_columns(manifest))
            return
        rows = [row for columns in tree_columns(manifest) for row in zip(*columns, strict=True)]
        singly = list(tree_entries(manifest))

    assert rows == [
        (entry.type, int(entry.permissions, 8), entry.checksum, entry.size, entry.path) for entry in entries
    ]
    assert [(entry.is_folder, entry.path) for entry in singly] == [
        (entry.type == "D", entry.path[2:].removesuffix("/")) for entry in entries
    ]


@pytest.mark.parametrize("piece_bytes", [1, 64 * 1024])
@pytest.mark.parametrize(
    ("paths", "number", "why"),
    [
        (["./a", "./a-b", "./a.b", "./a/b"], 4, "is below './a', which is a file"),
        (["./a", "./a"], 2, "is listed twice"),
        (["./a", "./b/../c"], 2, "leads out of the tree"),
        (["./a", "./b\0"], 2, "NUL"),
        (["./a", "b"], 2, "does not begin with './'"),
    ],
)
def test_the_first_wrong_line_is_named(
    paths: list[str], number: int, why: str, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "PIECE_BYTES", piece_bytes)
    text = render([Entry("F", "644", digest(path.encode()), 1, path) for path in paths])
    with (
        Manifest.from_bytes(snapshot_id(text), text) as manifest,
        pytest.raises(ManifestSyntaxError, match=f"line {number} of the manifest") as refused,
    ):
        list(tree_columns(manifest))
    assert why in str(refused.value)


files_of_a_tree = st.dictionaries(
    paths_below, st.tuples(st.integers(0, 0o7777), st.integers(0, 2000)), max_size=25
)


@given(files_of_a_tree)
def test_lines_of_many_files_are_those_of_each(files: dict[str, tuple[int, int]]) -> None:
    entries = [
        TreeEntry(False, mode, digest(path.encode()), size, path) for path, (mode, size) in files.items()
    ]
    text = render(
        [Entry("F", f"{each.mode:o}", each.address, each.size, f"./{each.path}") for each in entries]
        or [Entry("D", "755", digest(b""), 0, "./")]
    )
    lines = [line_of(entry) for entry in entries]
    assert files_of(lines, [entry.size for entry in entries]) == entries

    if any(other.startswith(f"{path}/") for path in files for other in files):
        return
    with Manifest.from_bytes(snapshot_id(text), text) as manifest:
        found = [line for columns in tree_columns(manifest) for line in lines_of(columns.files())]
    assert [line.encode() for line in found] == sorted(lines)


@pytest.mark.parametrize(
    "line",
    [
        b"./a\x00644",
        b"./a\x00644\x00" + b"0" * 63,
        b"./a\x00rw\x00" + b"0" * 64,
        b"./a\0b\x00644\x00" + b"0" * 64,
    ],
)
def test_a_wrong_line_is_refused_among_right_ones(line: bytes) -> None:
    right = b"./b\x00644\x00" + b"0" * 64
    with pytest.raises((ValueError, InvalidAddress)):
        file_of(line, 1)
    for lines in ([line], [right, line], [line, right, right]):
        with pytest.raises((ValueError, InvalidAddress)):
            files_of(lines, [1] * len(lines))
    with pytest.raises(ValueError, match="size"):
        files_of([right], [])


@given(st.lists(st.sampled_from(["0" * 64, "af" * 32, "A" * 64, "0" * 63, "é" * 64, ""]), max_size=4))
def test_addresses_are_checked_together_as_each(texts: list[str]) -> None:
    def is_address(text: str) -> bool:
        try:
            return parse_address(text) == text
        except InvalidAddress:
            return False

    assert are_addresses(texts) == all(map(is_address, texts))


@given(st.lists(st.dictionaries(paths_below, st.integers(0, 1500), max_size=12), max_size=4))
def test_files_that_are_added_together_make_the_same_plan(parts: list[dict[str, int]]) -> None:
    many, singly = (FilePlanner(max_objects=5, max_bytes=1000) for _ in range(2))
    for number, part in enumerate(parts):
        paths = [f"./{number}/{path}" for path in part]
        lines = [f"{path}\0é" if number % 2 else path for path in paths]
        many.add_many(paths, lines, list(part.values()))
        for path, line, size in zip(paths, lines, part.values(), strict=True):
            singly.add(path.encode(), line.encode(), size)
    plans = [planner.finish() for planner in (many, singly)]

    together, alone = ([plan.batch(number) for number in range(plan.batches)] for plan in plans)
    assert together == alone
    assert plans[0].size_bytes == plans[1].size_bytes
