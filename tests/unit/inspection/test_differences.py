"""What differs between two snapshots, or between two stores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.address import Address
from snapferry.stores.errors import ManifestSyntaxError
from snapferry.stores.hashing import digest
from snapferry.stores.inspection.differences import (
    Change,
    changed_objects,
    changed_paths,
    changed_snapshots,
)
from snapferry.stores.manifest.entry import Entry
from tests.property.strategies import entry_lists, quick

from .support import A, B, file, file_wrong, folder, put, snapshot_of, store_of


def changes(before: list[Entry], after: list[Entry], *, directories: bool = False) -> list[tuple[str, str]]:
    with snapshot_of(*before).open() as old, snapshot_of(*after).open() as new:
        found = changed_paths(old, new, directories=directories)
        return [(str(change), path) for change, path, _, _ in found]


def test_files_are_added_deleted_and_modified() -> None:
    before = [file("./a"), file("./b"), file("./d/x"), folder("./d/")]
    after = [file("./a", B), file("./c"), file("./d/y"), folder("./d/", B)]

    expected = [("M", "./a"), ("D", "./b"), ("A", "./c"), ("D", "./d/x"), ("A", "./d/y")]
    assert changes(before, after) == expected


@pytest.mark.parametrize("changed", [file("./a", B), file("./a", size=2), file("./a", permissions="600")])
def test_content_size_and_permissions_are_compared(changed: Entry) -> None:
    assert changes([file("./a")], [changed]) == [("M", "./a")]


def test_directories_are_left_out_unless_they_are_asked_for() -> None:
    before = [folder("./gone/"), folder("./mode/"), folder("./same/", A)]
    after = [folder("./mode/", permissions="700"), folder("./new/"), folder("./same/", B)]

    assert changes(before, after) == []
    found = changes(before, after, directories=True)
    assert found == [("D", "./gone/"), ("M", "./mode/"), ("A", "./new/")]


def test_a_file_in_the_place_of_a_directory_of_the_same_name_is_modified() -> None:
    assert changes([file("./a")], [folder("./a")]) == [("M", "./a")]


def test_a_path_that_is_listed_twice_must_be_the_same_both_times() -> None:
    assert changes([file("./a"), file("./a")], [file("./a")]) == []
    with pytest.raises(ManifestSyntaxError, match=r"'\./a' twice"):
        changes([file("./a"), file("./a", B)], [file("./a")])


def test_paths_are_in_the_order_of_their_bytes() -> None:
    names = ["./\U0001f600", "./\ue000", "./a", "./A", "./é", "./ "]
    found = [path for _, path in changes([], [file(name) for name in names])]

    assert found == sorted(names, key=str.encode)


@quick
@given(entry_lists, entry_lists, st.booleans())
def test_changes_are_those_of_two_dictionaries(
    before: list[Entry], after: list[Entry], directories: bool
) -> None:
    def compared(entry: Entry) -> tuple[object, ...]:
        return entry[:2] if entry.type == "D" else entry[:4]

    olds = {entry.path: entry for entry in before}
    news = {entry.path: entry for entry in after}
    expected = []
    for path in sorted(olds.keys() | news.keys(), key=str.encode):
        entries = [side[path] for side in (olds, news) if path in side]
        if all(entry.type == "D" for entry in entries) and not directories:
            continue
        if len(entries) == 1:
            expected.append(("A" if path in news else "D", path))
        elif compared(entries[0]) != compared(entries[1]):
            expected.append(("M", path))

    assert changes(before, after, directories=directories) == expected


def test_a_change_has_the_entry_of_each_side() -> None:
    with snapshot_of(file("./a")).open() as before, snapshot_of(file("./a", B)).open() as after:
        ((change, _, old, new),) = changed_paths(before, after)

    assert (change, old, new) == (Change.MODIFIED, file("./a"), file("./a", B))


def test_stores_are_compared_by_their_snapshots() -> None:
    one, both, other = (snapshot_of(file(f"./{number}")) for number in range(3))
    found = list(changed_snapshots(store_of(one, both), store_of(both, other)))

    assert found == sorted([(Change.DELETED, one.id), (Change.ADDED, other.id)], key=lambda each: each[1])


def test_stores_are_compared_by_their_objects() -> None:
    one, other = store_of(), store_of()
    both, left, right, torn = b"both", b"left", b"right", b"torn"
    for store in (one, other):
        put(store, both)
        put(store, b"")
    put(one, left)
    put(other, right)
    put(one, torn)
    file_wrong(other, digest(torn), b"")
    file_wrong(one, Address(A), b"short")
    file_wrong(other, Address(A), b"longer")

    found = {each.address: str(each.change) for each in changed_objects(one, other)}
    assert found == {digest(left): "D", digest(right): "A", digest(torn): "D", A: "M"}
    assert list(found) == sorted(found)
