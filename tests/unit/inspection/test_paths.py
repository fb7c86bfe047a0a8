"""Files and directories of a manifest by their paths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snapferry.stores.inspection.paths import IsDirectory, PathMissing, below, file_at
from snapferry.stores.manifest.parse import Manifest

from .support import B, file, folder, snapshot_of

SNAPSHOT = snapshot_of(
    folder("./"),
    file("./a-b"),
    file("./a.txt", B),
    folder("./a/"),
    folder("./a/b/"),
    file("./a/b/two"),
    file("./a/one"),
    file("./ spaced "),
    file("./éa"),
)


@pytest.fixture
def tree() -> Iterator[Manifest]:
    with SNAPSHOT.open() as manifest:
        yield manifest


@pytest.mark.parametrize("path", ["a", "./a", "a/", "./a/"])
def test_a_directory_is_shown_with_all_that_is_below_it(tree: Manifest, path: str) -> None:
    assert [entry.path for entry in below(tree, path)] == ["./a/", "./a/b/", "./a/b/two", "./a/one"]


@pytest.mark.parametrize("path", ["", ".", "./"])
def test_the_root_is_the_whole_manifest(tree: Manifest, path: str) -> None:
    assert len(list(below(tree, path))) == 9


@pytest.mark.parametrize("path", ["a.txt", "./a.txt"])
def test_a_file_is_found_by_its_path(tree: Manifest, path: str) -> None:
    assert file_at(tree, path) == file("./a.txt", B)
    assert [entry.path for entry in below(tree, path)] == ["./a.txt"]


@pytest.mark.parametrize("path", [" spaced ", "éa"])
def test_names_are_taken_as_they_are(tree: Manifest, path: str) -> None:
    assert file_at(tree, path).path == f"./{path}"


@pytest.mark.parametrize("path", ["a", "a/b/", ".", ""])
def test_a_directory_is_no_file(tree: Manifest, path: str) -> None:
    with pytest.raises(IsDirectory):
        file_at(tree, path)


def test_a_directory_without_a_line_of_its_own_is_a_directory() -> None:
    with snapshot_of(file("./x/y")).open() as bare:
        assert [entry.path for entry in below(bare, "x")] == ["./x/y"]
        with pytest.raises(IsDirectory):
            file_at(bare, "x")


def test_absolute_paths_are_found_as_they_are() -> None:
    with snapshot_of(folder("/srv/"), file("/srv/x")).open() as absolute:
        assert file_at(absolute, "/srv/x").path == "/srv/x"
        assert len(list(below(absolute, "/srv"))) == 2
        assert len(list(below(absolute, "/"))) == 2


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("a/b/twoo", ["./a/b/two"]),
        ("a/onne", ["./a/one"]),
        ("a/bb/two", ["./a/b/", "./a/b/two"]),
        ("two", ["./a/b/two"]),
        ("TWO", ["./a/b/two"]),
        ("a.txt/x", ["./a.txt"]),
        ("nothing like it", []),
        ("\udcffa.txt", ["./a.txt"]),
        ("/".join("x" * 5000), []),
    ],
)
def test_a_path_that_is_not_there_has_near_ones(tree: Manifest, path: str, near: list[str]) -> None:
    with pytest.raises(PathMissing) as raised:
        file_at(tree, path)
    assert [found for found in near if found not in raised.value.near] == []
    with pytest.raises(PathMissing):
        list(below(tree, path))
    assert raised.value.snapshot_id == tree.id
    assert raised.value.path == path
