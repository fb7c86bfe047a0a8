"""Reading directory trees: what is refused, what is never waited for, and where links may lead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.access import STRICT, TRUSTED, AccessPolicy, Right
from snapferry.stores.backends.tree import walk as walking
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.exclude import excluder
from snapferry.stores.backends.tree.listing import list_tree
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.reading import read_file
from snapferry.stores.backends.tree.snapshot import read_tree
from snapferry.stores.backends.tree.walk import Walk
from snapferry.stores.errors import (
    FileChanged,
    InvalidPattern,
    KeyMissing,
    ManifestSyntaxError,
    ManifestTooLarge,
    NotAllowed,
    NotAnObject,
    StoreFault,
    StoreNotFound,
)
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_backend
from snapferry.stores.urls import parse_url


def backend_of(tree: Path, *, follow: bool = True, access: AccessPolicy = TRUSTED) -> TreeBackend:
    backend = open_backend(parse_url(f"tree://{tree}"), Right.READ, access=access)
    assert isinstance(backend, TreeBackend)
    backend.follow = follow
    return backend


def lines_of(tree: Path, *, follow: bool = True, access: AccessPolicy = TRUSTED) -> list[str]:
    with read_tree(backend_of(tree, follow=follow, access=access)) as manifest:
        return [entry.path for entry in manifest.entries()]


def only_below(*places: Path) -> AccessPolicy:
    return AccessPolicy(read=tuple(parse_url(f"tree://{place}") for place in places))


def test_a_newline_in_a_name_is_refused_with_the_name_unless_it_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    (tmp_path / "two\nlines").touch()

    with pytest.raises(ManifestSyntaxError) as raised:
        lines_of(tmp_path)
    assert raised.value.subject == "two\\nlines"

    with read_tree(backend_of(tmp_path), exclude=["two"]) as manifest:
        assert [entry.path for entry in manifest.entries()] == ["./", "./good"]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("other", [lambda path: path.symlink_to("nowhere"), lambda path: path.touch()])
def test_a_directory_that_is_replaced_after_the_walk_is_a_change(
    tmp_path: Path, follow: bool, other: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again, like any file that changes, and is not described as a loop of links."""
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "file").touch()
    backend = backend_of(tmp_path / "tree", follow=follow)
    (tmp_path / "tree" / "a").rename(tmp_path / "tree" / "b")
    other(tmp_path / "tree" / "a")

    with pytest.raises((FileChanged, KeyMissing)) as caught:
        backend.open("a/file")
    assert "meanwhile" in caught.value.detail


@pytest.mark.parametrize("target", ["file/below", "file/"])
def test_a_link_through_a_file_is_not_taken_for_a_change_of_the_tree(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(target)

    with pytest.raises(StoreFault) as raised:
        list_tree(Walk(TreePlace(str(tmp_path))), "")

    assert type(raised.value) is StoreFault
    assert raised.value.subject == "link"


def test_a_root_that_is_not_there_or_no_directory_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("not there", "file", "file/below"):
        with pytest.raises(StoreNotFound):
            backend_of(tmp_path / name).check(for_writing=False)


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").touch()
    (tmp_path / "file").touch()
    (tmp_path / name).chmod(0)
    script = f"""
from tests.unit.test_tree import lines_of
from snapferry.stores.errors import AccessDenied
from pathlib import Path
try:
    lines_of(Path({str(tmp_path)!r}))
except AccessDenied as error:
    print(error.subject.removeprefix("./"))
"""
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    said = subprocess.run([*plain, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == name


@pytest.mark.parametrize("follow", [True, False])
def test_a_file_that_became_a_fifo_is_not_waited_for(tmp_path: Path, *, follow: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    backend = backend_of(tmp_path, follow=follow)
    with pytest.raises(NotAnObject):
        backend.open("./fifo")
    with pytest.raises(NotAnObject):
        backend.open("./.")


def test_a_file_that_became_a_link_is_not_followed_where_links_are_not(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").symlink_to("../outside")
    (tmp_path / "tree" / "folder").symlink_to("..")
    backend = backend_of(tmp_path / "tree", follow=False)
    for path in ("./file", "./folder/outside", "./../outside"):
        with pytest.raises(StoreFault):
            backend.open(path)


def test_a_file_that_grows_shrinks_or_is_written_while_it_is_read_has_changed(tmp_path: Path) -> None:
    def grow(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    def shrink(path: Path) -> None:
        os.truncate(path, 5)

    def overwrite(path: Path) -> None:
        with path.open("r+b") as file:
            file.write(b"XXX")
        # A file system may keep coarse times.
        os.utime(path, ns=(1, 1))

    changes: list[Callable[[Path], None]] = [grow, shrink, overwrite]
    for change in changes:
        path = tmp_path / change.__name__
        path.write_bytes(b"0123456789")
        with backend_of(tmp_path).open(f"./{path.name}") as reader:
            assert reader.read(3) == b"012"
            change(path)
            with pytest.raises(FileChanged) as raised:
                while reader.read(3):
                    pass
        assert raised.value.subject == path.name


def test_a_file_that_holds_still_at_last_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    times = 0

    class Busy(TreeBackend):
        def open(self, key: str, *, size_hint: int = 0):
            nonlocal times
            times += 1
            reader = super().open(key, size_hint=size_hint)
            if times < 3:
                path.write_bytes(b"0" * (10 + times))
            return reader

    found = read_file(Busy(TreePlace(str(tmp_path))), "./file")
    found.forget()
    assert (found.address, found.data, times) == (digest(path.read_bytes()), b"0" * 12, 3)


def test_a_removed_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        read_file(backend_of(tmp_path), "./gone")


def test_trees_are_opened_only_where_a_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    everywhere = AccessPolicy(read=tuple(map(parse_url, ("file:///", "s3://any"))))
    for access in (STRICT, everywhere, only_below(tmp_path / "other")):
        with pytest.raises(NotAllowed):
            backend_of(tmp_path / "tree", access=access)
    assert lines_of(tmp_path / "tree", access=only_below(tmp_path)) == ["./"]


def test_links_lead_only_to_places_that_are_allowed(tmp_path: Path) -> None:
    tree, allowed, secret = (tmp_path / name for name in ("tree", "allowed", "secret"))
    for folder in (tree, allowed, secret):
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    (tree / "inside").symlink_to("file")
    (tree / "out").symlink_to("../allowed")
    access = only_below(tree, allowed)
    assert lines_of(tree, access=access) == ["./", "./file", "./inside", "./out/", "./out/file"]

    for target in ("../secret", "../secret/file", "../secret/not there", "/etc/passwd"):
        (tree / "bad").symlink_to(target)
        with pytest.raises(NotAllowed) as raised:
            lines_of(tree, access=access)
        assert raised.value.subject == "bad"
        with pytest.raises(NotAllowed):
            backend_of(tree, access=access).open("./bad")
        assert lines_of(tree, follow=False, access=access) == ["./", "./file"]
        (tree / "bad").unlink()

    # A link that was allowed when it was listed, and leads elsewhere when the file is read.
    (allowed / "swapped").symlink_to("../secret/file")
    with pytest.raises(NotAllowed):
        backend_of(tree, access=access).open("./out/swapped")


def test_loops_of_links_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MOST_IN_LOOPS", 1000)
    (tmp_path / "one").symlink_to(".")
    (tmp_path / "other").symlink_to(".")

    for jobs in (1, 4):
        with pytest.raises(ManifestTooLarge):
            list(Walk(TreePlace(str(tmp_path)), jobs=jobs))
    assert [found.path for found in Walk(TreePlace(str(tmp_path)), follow=False)] == ["./"]


class SlowPlace(TreePlace):
    """A tree whose directories take *delay_s* to open. *threads* are those that opened one."""

    def __init__(self, path: Path, delay_s: float) -> None:
        super().__init__(str(path))
        self._delay_s = delay_s
        self.threads: set[str] = set()

    def open_folder(self, path: str, *, follow: bool) -> int:
        self.threads.add(threading.current_thread().name)
        time.sleep(self._delay_s)
        return super().open_folder(path, follow=follow)


def test_a_slow_tree_is_listed_by_several_threads_and_in_order(tmp_path: Path) -> None:
    for name in ("a", "a/b", "a/c", *(f"d{number}" for number in range(30))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    place = SlowPlace(tmp_path, 0.01)

    found = list(Walk(place, jobs=4))

    assert found == list(Walk(TreePlace(str(tmp_path))))
    assert len(place.threads) > 2


def test_a_listing_has_what_was_found_and_tells_two_trees_apart(tmp_path: Path) -> None:
    names = ["a", "é", "x" * 255, "sub"]
    for name in names[:3]:
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to("../a")
    (tmp_path / "none").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")

    walk = Walk(TreePlace(str(tmp_path)), excluded=excluder(["/a$"]), jobs=2)
    listing = list_tree(walk, "")

    assert [(found.path, found.length) for found in listing.files()] == [
        ("./sub/link", 1),
        (f"./{'x' * 255}", 255),
        ("./é", 2),
    ]
    assert (walk.left_out.special, walk.left_out.nowhere, walk.left_out.excluded) == (1, 1, 1)
    again = list_tree(Walk(TreePlace(str(tmp_path)), excluded=excluder(["/a$"])), "")
    assert again.digest() == listing.digest()
    (tmp_path / "é").write_bytes(b"longer")
    assert (
        list_tree(Walk(TreePlace(str(tmp_path)), excluded=excluder(["/a$"])), "").digest() != listing.digest()
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "[",
        "(?=a)",
        r"\1",
        r"\bword",
        "[a&&b]",
        "[a--b]",
        "[[a]b]",
        r"[\W]",
        r"\Qa",
        r"\<a",
        r"\07",
        r"[\0]",
        "a{",
        "a{,2}",
        "a{b}",
        r"\p{^L}",
        "(" * 2000,
        "a\udcff",
    ],
)
def test_patterns_that_cannot_be_used_as_snapdir_uses_them_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        excluder([pattern])


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("/a$", ["/a", "/b/a"], ["/a/b", "/ab", "a"]),
        (r"^/t/[]a]$", ["/t/]", "/t/a"], ["/t/b"]),
        (r"^/t/[^]a]$", ["/t/b"], ["/t/]", "/t/a"]),
        (r"[[:digit:]]", ["/1"], ["/a", "/["]),
        (r"^/\d$", ["/1", "/٣"], ["/a"]),
        (r"^/[\dx]$", ["/1", "/٣", "/x"], ["/a"]),
        (r"^/\w\W\s$", ["/é- "], ["/- é"]),
        (r"\\", ["/\\"], ["/"]),
        (r"^/a{2}b{1,}c{0,1}$", ["/aab"], ["/ab"]),
        (r"^/\{[{]}\p{Lu}\x{61}\x62\pL$", ["/{{}Aabz"], ["/{{}aabz"]),
        (r"^/[\p{Lu}{]$", ["/{", "/A"], ["/a"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, matches: list[str], others: list[str]) -> None:
    matched = excluder([pattern])
    assert matched is not None
    assert [path for path in matches + others if matched(path)] == matches


def test_no_pattern_excludes_nothing() -> None:
    assert excluder([]) is None


def test_a_pattern_takes_time_that_grows_with_the_path_alone() -> None:
    matched = excluder(["(a+)+$", "(a|a)*b", "(.*)*x$"])
    assert matched is not None
    ended = threading.Event()

    def match() -> None:
        matched("/" + "a" * 4000 + "!")
        ended.set()

    threading.Thread(target=match, daemon=True).start()
    begun = time.monotonic()
    assert ended.wait(240)
    assert time.monotonic() - begun < 240
