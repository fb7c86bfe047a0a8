"""The end of a tree: one pass checks all files, and only if all are as listed is anything removed or set."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.tree.writing import checking, settling
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.tree_lines import TreeColumns
from snapferry.stores.stream_store import Settled

EMPTY = digest(b"")
NOBODY = 65534


@pytest.fixture(params=["compiled", "in a thread", "no threads", "uncompiled"], autouse=True)
def _each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "uncompiled":
        monkeypatch.setattr(extension, "_extension", None)
    elif request.param != "compiled":
        monkeypatch.setattr(checking, "NAMES_FOR_A_THREAD", 1)
    if request.param == "no threads":
        monkeypatch.setattr(threading.Thread, "start", _no_memory)


def _no_memory(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def columns(*lines: tuple[str, int]) -> TreeColumns:
    """Return the lines of these paths and modes."""
    paths, modes = zip(*sorted(lines), strict=True)
    kinds = ["D" if path.endswith("/") else "F" for path in paths]
    return TreeColumns(kinds, modes, [EMPTY] * len(paths), [0] * len(paths), paths)


def settle(
    root: Path, *lines: tuple[str, int], delete: bool = False, most: int = 100, at_once: int = 3
) -> Settled:
    """Settle the tree, with few lines in each piece."""
    everything = columns(*lines)

    def pieces() -> Iterator[TreeColumns]:
        for first in range(0, len(lines), at_once):
            yield TreeColumns(*(column[first : first + at_once] for column in everything))  # type: ignore[arg-type]

    return TreeTarget(str(root), delete=delete).settle(pieces, most)


def make(root: Path, *paths: str, mode: int = 0o644) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
        (root / path).chmod(mode)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_files_that_are_not_as_listed_are_found_and_nothing_else_is_done(tmp_path: Path) -> None:
    make(tmp_path, "a/right", "a/extra", "b/other-mode", "z")
    (tmp_path / "b/other-mode").chmod(0o600)
    (tmp_path / "a/folder").mkdir()
    (tmp_path / "a/link").symlink_to("right")
    names = ["a/right", "a/absent", "a/folder", "a/link", "b/other-mode", "none/below", "z"]
    lines = [("./", 0o700), ("./a/", 0o750), ("./new/", 0o755), *((f"./{name}", 0o644) for name in names)]

    found = settle(tmp_path, *lines, delete=True)

    assert [file.path for file in found.wrong] == [
        "a/absent",
        "a/folder",
        "a/link",
        "b/other-mode",
        "none/below",
    ]
    assert {(file.mode, file.address, file.is_folder) for file in found.wrong} == {(0o644, EMPTY, False)}
    assert found.removed == 0
    assert (tmp_path / "a/extra").exists()
    assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "none").exists()
    assert mode_of(tmp_path / "a") != 0o750
    assert [file.path for file in settle(tmp_path, *lines, most=2).wrong] == ["a/absent", "a/folder"]


@pytest.mark.parametrize("noted", [settling.MOST_NOTED, 0, 3])
def test_a_tree_ends_in_the_same_way_whatever_could_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: int
) -> None:
    monkeypatch.setattr(settling, "MOST_NOTED", noted)
    make(tmp_path, "a/b/c/1", "a/b/c/extra", "a/b/2", "a/also", "more/deep/x", "3")
    lines = [
        ("./", 0o711), ("./3", 0o644), ("./a/", 0o750), ("./a/b/", 0o500), ("./a/b/2", 0o644),
        ("./a/b/c/", 0o555), ("./a/b/c/1", 0o644), ("./empty/", 0o700),
    ]  # fmt: skip

    assert settle(tmp_path, *lines, delete=True) == Settled((), 3)

    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"3", "a", "a/b", "a/b/2", "a/b/c", "a/b/c/1", "empty"}
    assert mode_of(tmp_path) == 0o711
    assert [mode_of(tmp_path / path) for path in ("a", "a/b", "a/b/c", "empty")] == [
        0o750,
        0o500,
        0o555,
        0o700,
    ]
    # A second time, there is nothing to do.
    assert settle(tmp_path, *lines, delete=True) == Settled(())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_permissions_are_set_again_above_a_directory_that_was_changed(tmp_path: Path) -> None:
    """A removal may open the directories above it. Their permissions were right when the pass left them."""
    make(tmp_path, "a/b/extra", "a/1")
    lines = [("./", 0o755), ("./a/", 0o500), ("./a/1", 0o644), ("./a/b/", 0o500)]
    for path in ("a/b", "a"):
        (tmp_path / path).chmod(0o500)

    for each in [tmp_path, *tmp_path.parents]:
        if each.stat().st_uid == 0 and str(each).startswith("/tmp/"):
            each.chmod(each.stat().st_mode | 0o055)
    for path in (".", "a", "a/b"):
        os.chown(tmp_path / path, NOBODY, NOBODY)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(NOBODY)
            status = int(settle(tmp_path, *lines, delete=True) != Settled((), 1))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not (tmp_path / "a/b/extra").exists()
    assert [mode_of(tmp_path / path) for path in ("a", "a/b")] == [0o500, 0o500]


def test_a_directory_of_many_files_is_checked_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "MOST_NAMES", 4)
    names = [f"{number:02}" for number in range(11)]
    make(tmp_path, *(name for name in names if name not in {"03", "10"}))

    found = settle(tmp_path, ("./", 0o755), *((f"./{name}", 0o644) for name in names), at_once=50)

    assert [file.path for file in found.wrong] == ["03", "10"]


def test_few_directories_are_open_at_once_however_many_there_are(tmp_path: Path) -> None:
    names = [f"{number:03}/{file}" for number in range(100) for file in "ab"]
    make(tmp_path, *(name for name in names if name not in {"000/a", "050/b", "099/a", "099/b"}))
    (tmp_path / "060/a").chmod(0o600)
    opened = most = 0

    def pieces() -> Iterator[TreeColumns]:
        nonlocal most
        for name in names:
            most = max(most, len(os.listdir("/proc/self/fd")) - opened)
            yield columns((f"./{name}", 0o644))

    target = TreeTarget(str(tmp_path))
    opened = len(os.listdir("/proc/self/fd"))
    found = target.settle(pieces, 100)

    assert [file.path for file in found.wrong] == ["000/a", "050/b", "060/a", "099/a", "099/b"]
    assert most < 64 + 20


def test_a_name_that_no_file_can_have_is_judged_as_that_of_one_file(tmp_path: Path) -> None:
    """The extension leaves it open."""
    make(tmp_path, "a", "b")

    with pytest.raises(StoreError, match="too long"):
        settle(tmp_path, ("./", 0o755), ("./a", 0o644), ("./" + "b" * 256, 0o644))
