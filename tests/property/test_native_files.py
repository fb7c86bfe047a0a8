"""The compiled extension for many files: the same answers and the same files as without it, whatever is there."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from snapferry.stores.address import Address
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.directory.native.reading import read_many
from snapferry.stores.backends.directory.paths.root import Root
from snapferry.stores.backends.directory.paths.rules import DirectoryRules
from snapferry.stores.backends.directory.sizes import lengths
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.tree_entries import TreeEntry
from tests.property.strategies import examples, patient, quick

few = settings(patient, max_examples=examples(30))

# Few names, so that paths share directories, and meet what is there.
NAMES = st.sampled_from(["a", "b", "abc", ".objects", "é", "x" * 255, " "])
PLACES = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ODD = st.sampled_from(
    [
        "",
        ".",
        "..",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/../b",
        "../a",
        "/etc/passwd",
        "a\0b",
        "\0",
        "a/b\0/../c",
        "x" * 256,
        "a/" * 2500,
        "a\ud800",
        "a/b\udc80",
        "y/" * 200 + "b",
    ]
)
PATHS = st.one_of(PLACES, PLACES, PLACES, ODD)
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([4095, 4096, 4097, 65535, 65536, 65537, 2**62, -1]))


def make_file(path: Path) -> None:
    path.write_bytes(b"%d " % len(path.name) * 7)


def make_long(path: Path) -> None:
    path.write_bytes(b"x" * 4096)


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_secret(path: Path) -> None:
    path.write_bytes(b"secret")
    path.chmod(0)


def make_link(path: Path) -> None:
    path.symlink_to("a")


def make_link_up(path: Path) -> None:
    path.symlink_to("../..")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


THINGS: Sequence[Callable[[Path], None]] = (
    make_file,
    make_file,
    make_long,
    make_empty,
    make_secret,
    make_link,
    make_link_up,
    make_link_to_itself,
    os.mkfifo,
    os.mkdir,
)
TREES = st.lists(st.tuples(PLACES, st.sampled_from(THINGS)), max_size=12)


def build(root: Path, things: Sequence[tuple[str, Callable[[Path], None]]]) -> None:
    root.mkdir()
    for place, make in things:
        path = root / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(path):
                make(path)
        except OSError:
            # Something else is in the way.
            pass


@contextmanager
def uncompiled() -> Iterator[None]:
    kept = extension._extension
    extension._extension = None
    try:
        yield
    finally:
        extension._extension = kept


def outcome(work: Callable[[], Any]) -> Any:
    """Return what *work* returns, or the error that it raises."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


def alike(work: Callable[[], Any]) -> None:
    """Compare what *work* does with the extension and without it."""
    before = open_files()
    found = outcome(work)
    with uncompiled():
        assert found == outcome(work)
    assert open_files() == before


def open_files() -> int:
    # Errors and their frames refer to each other.
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@quick
@given(TREES, st.lists(st.tuples(PATHS, SIZES), max_size=20))
@example([("a/b", make_file)], [("a/b", 0), ("a/b", 27), ("a/b", 13), ("a/b", 14), ("a/b", 65536)])
@example([("a/b", make_file)], [("a/b\0c", 20), ("a/b\ud800", 20)])
@example(
    [("a", make_link_up), ("b", os.mkfifo), ("abc", os.mkdir)], [("a/a", 1), ("b", 1), ("abc", 1), ("a", 1)]
)
def test_files_are_read_alike(
    things: list[tuple[str, Callable[[Path], None]]], asked: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "root"
        build(path, things)
        root = Root(str(path), DirectoryRules())
        tree = TreeBackend(TreePlace(str(path)))
        tree.place.root()
        paths, sizes = [one for one, _ in asked], [size for _, size in asked]
        # Without the extension any size is asked of the kernel, which needs memory for it.
        bounded = [min(size, 70_000) for size in sizes]
        alike(lambda: read_many(root.descriptor, paths, bounded))
        alike(lambda: tree.fetch_many(paths, sizes))


@quick
@given(TREES, st.lists(PATHS, max_size=30), st.booleans())
@example(
    [(".objects/a/b", make_file)], [".objects/a/b", ".objects/a/c", ".objects/b/c", ".objects/b/d"], False
)
@example([(".objects/a", make_file)], [".objects/a/b", ".objects/a/c"], False)
@example([("a/abc", make_link_up), ("b/b", make_long)], ["a/abc/a", "a/abc/b", "b/b"], True)
@example([], ["a/" * 2500, "", "a/" * 2500], False)
def test_lengths_are_found_alike(
    things: list[tuple[str, Callable[[Path], None]]], keys: list[str], follow: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "root"
        build(path, things)
        root = Root(str(path), DirectoryRules(follow_into=(folder,) if follow else ()))
        alike(lambda: list(lengths(root, keys)))


def files_below(root: Path) -> list[tuple[str, int, bytes]]:
    """Return everything below *root*, but the names of temporary files."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = b""
        if path.is_symlink():
            data = os.readlink(path).encode()
        elif path.is_file():
            data = path.read_bytes()
        found.append((str(path.relative_to(root)), status.st_mode, data))
    return found


KEYS = st.lists(NAMES, min_size=2, max_size=5).map("/".join)
# Not so deep that what is written cannot be removed.
SHORT_PATHS = PATHS.filter(lambda path: len(path) < 1000)
DATA = st.sampled_from([b"", b"x", b"y" * 4096, b"z" * 65536])


def without_folders(root: Path) -> list[tuple[str, int, bytes]]:
    """Return `files_below`, without directories: those of files behind one that failed may have been made already."""
    return [(path, mode, data) for path, mode, data in files_below(root) if not stat.S_ISDIR(mode)]


def ended(root: Path, count: int, uploads: Any, commit: Callable[[Any], None], *, aborted: bool) -> Any:
    """Commit or abort *uploads*, up to *count*; return how many there were, the error, and what is there then."""
    if isinstance(uploads, tuple):
        return uploads, without_folders(root)
    error = None
    try:
        if not aborted:
            commit(uploads)
    except StoreError as failed:
        error = type(failed), failed.subject, failed.detail.replace(str(root), "")
    finally:
        for upload in uploads:
            upload.abort()
    return len(uploads), error, files_below(root) if len(uploads) == count else without_folders(root)


def alike_in_two(things: list[tuple[str, Callable[[Path], None]]], work: Callable[[Path], Any]) -> None:
    """Compare what *work* does in two equal directories, with the extension and without it."""
    before = open_files()
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "1", Path(folder) / "2"
        build(first, things)
        build(second, things)
        found = work(first)
        with uncompiled():
            assert found == work(second)
    assert open_files() == before


@few
@given(TREES, st.lists(st.tuples(st.one_of(KEYS, KEYS, SHORT_PATHS), DATA), max_size=20), st.booleans())
@example([], [(f"a/b/{name}/b", b"x" * 4096) for name in "abcdefghij"], False)
@example([("a/b/abc", make_file)], [("a/b/a/b", b""), ("a/b/abc/b", b"x"), ("a/b/b/b", b"y")], False)
@example([("a/b/abc", make_link_up)], [("a/b/abc/b", b"x")] * 9, False)
@example([("a/b", os.mkdir)], [("a/b", b"x")] * 9, False)
@example([("a/b/abc", make_file)], [("a/b/abc", b"x"), ("a/b/a\0b", b"x")] * 9, True)
@example([], [("a/b/a", b"x"), ("a/b/\udc80/a\udc80", b"x")], False)
def test_a_store_is_written_alike(
    things: list[tuple[str, Callable[[Path], None]]], files: list[tuple[str, bytes]], aborted: bool
) -> None:
    def write(root: Path) -> Any:
        backend = DirectoryBackend(str(root))
        keys, data = [key for key, _ in files], [each for _, each in files]
        uploads = outcome(lambda: backend.upload_many(keys, data))
        return ended(root, len(files), uploads, backend.commit_all, aborted=aborted)

    alike_in_two(things, write)


# Paths in a manifest are checked before a tree is written.
ENTRIES = st.tuples(PLACES, DATA, st.sampled_from([0o644, 0o4755, 0o600, 0o7777, 0])).map(
    lambda one: (TreeEntry(False, one[2], Address(""), len(one[1]), one[0]), one[1])
)


@few
@given(TREES, st.lists(ENTRIES, max_size=20), st.booleans(), st.booleans())
def test_a_tree_is_written_alike(
    things: list[tuple[str, Callable[[Path], None]]],
    files: list[tuple[TreeEntry, bytes]],
    delete: bool,
    aborted: bool,
) -> None:
    def write(root: Path) -> Any:
        target = TreeTarget(str(root), delete=delete)
        uploads = outcome(
            lambda: target.upload_many([file for file, _ in files], [data for _, data in files])
        )
        return ended(root, len(files), uploads, target.commit_all, aborted=aborted)

    alike_in_two(things, write)
