"""Large objects between directories of one file system that shares extents: cloned, and verified all the same."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.directory import streams
from snapferry.stores.errors import IntegrityError
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore

LARGE = os.urandom(3 * CHUNK_BYTES + 17)
ADDRESS = digest(LARGE)

Clone = Callable[[int, int], bool]


def standing_in(source: int, target: int) -> bool:
    """Do by copying what a file system does that shares extents."""
    with open(source, "rb", closefd=False) as one, open(target, "wb", closefd=False) as other:
        shutil.copyfileobj(one, other)
    os.lseek(target, 0, os.SEEK_SET)
    os.lseek(source, 0, os.SEEK_SET)
    return True


@pytest.fixture
def clones(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each attempt to clone has said."""
    said: list[bool] = []
    clone: Callable[[int, int], bool] = vars(streams)["clone"]  # or the stand-in that a fixture put there

    def heard(source: int, target: int) -> bool:
        said.append(clone(source, target))
        return said[-1]

    monkeypatch.setattr(streams, "clone", heard)
    return said


@pytest.fixture(params=["xfs", "stand-in"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of a file system that clones: XFS where one may be made and mounted here, else a stand-in for it."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if request.param == "xfs" and mount_xfs(tmp_path / "image", mounted):
        yield mounted
        subprocess.run(["umount", "--lazy", mounted], check=True)
        return
    monkeypatch.setattr(streams, "clone", standing_in)
    yield mounted


def mount_xfs(image: Path, where: Path) -> bool:
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        return False
    with image.open("wb") as made:
        made.truncate(320_000_000)
    commands: list[list[str | Path]] = [["mkfs.xfs", "-q", image], ["mount", "-o", "loop", image, where]]
    return all(subprocess.run(each, capture_output=True, check=False).returncode == 0 for each in commands)


def stores(root: Path, data: bytes = LARGE) -> tuple[SnapshotStore, SnapshotStore]:
    """Return a source that has *data* filed under the address of the large object, and a destination."""
    path = root / "source" / object_key(ADDRESS)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    source, destination = (open_store(str(root / side)) for side in ("source", "destination"))
    destination.prepare()
    return source, destination


def files(root: Path) -> list[Path]:
    return [path for path in (root / "destination").rglob("*") if path.is_file()]


def test_a_large_object_is_cloned(root: Path, clones: list[bool]) -> None:
    source, destination = stores(root)

    assert destination.copy_object(source, ADDRESS, size_hint=len(LARGE)) == len(LARGE)

    assert clones == [True]
    assert destination.get_object(ADDRESS) == LARGE


def test_a_clone_of_a_corrupt_object_is_seen_by_nobody(root: Path, clones: list[bool]) -> None:
    source, destination = stores(root, LARGE[:-1] + bytes([LARGE[-1] ^ 1]))

    with pytest.raises(IntegrityError):
        destination.copy_object(source, ADDRESS, size_hint=len(LARGE))

    # Wrong bytes are read a second time.
    assert clones == [True, True]
    assert files(root) == []


@pytest.mark.parametrize("change", ["overwritten", "shorter", "longer"])
def test_what_becomes_of_the_source_after_it_was_cloned_does_not_matter(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source, destination = stores(root)
    path = root / "source" / object_key(ADDRESS)
    clone: Callable[[int, int], bool] = vars(streams)["clone"]  # or the stand-in that a fixture put there

    def changed_behind_it(one: int, other: int) -> bool:
        done = clone(one, other)
        with path.open("r+b") as victim:
            if change == "overwritten":
                victim.write(b"?")
            else:
                victim.truncate(len(LARGE) + (1 if change == "longer" else -1))
        return done

    monkeypatch.setattr(streams, "clone", changed_behind_it)

    destination.copy_object(source, ADDRESS, size_hint=len(LARGE))

    assert destination.get_object(ADDRESS) == LARGE


def test_where_less_is_shared_than_was_asked_for_the_bytes_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clones: list[bool]
) -> None:
    source, destination = stores(tmp_path)

    def shares_half(target: int, request: int, from_: int) -> int:
        os.pwrite(target, os.pread(from_, CHUNK_BYTES, 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", shares_half)

    destination.copy_object(source, ADDRESS, size_hint=len(LARGE))

    assert clones == [False]
    assert destination.get_object(ADDRESS) == LARGE


def test_where_nothing_can_be_cloned_the_bytes_are_copied(file_root: Path, clones: list[bool]) -> None:
    source, destination = stores(file_root)

    destination.copy_object(source, ADDRESS, size_hint=len(LARGE))

    assert clones == [False]
    assert destination.get_object(ADDRESS) == LARGE
