"""Many short objects at once: the same end of each as by itself, whatever is in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from snapferry.stores.address import Address, object_key
from snapferry.stores.backends.directory import backend as directory_backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.directory.paths import beneath
from snapferry.stores.backends.directory.streams import FileUpload
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.reading import read_file, read_files
from snapferry.stores.errors import StoreFull
from snapferry.stores.hashing import digest
from snapferry.stores.pools.together import MOST_TOGETHER, SHORT_BYTES
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import Buffer
from snapferry.stores.wrappers.forwarding import ForwardingBackend
from snapferry.workers.copying.transfer import copy_batch, verify
from snapferry.workers.copying.transfer.verify import verify_batch
from snapferry.workers.outcome import BatchOutcome

BODIES = [
    b"",
    *(b"%d " % number * number for number in range(1, 2 * MOST_TOGETHER)),
    b"x" * (SHORT_BYTES + 1),
]
SIZES = {digest(body): len(body) for body in BODIES}
VICTIM = digest(BODIES[50])


class Quiet:
    def begin(self, needed: list[Address]) -> None:
        """Show nothing."""

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """Show nothing."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SECOND_LOOK_S", 0.0)


@pytest.fixture(params=["compiled", "openat2", "each part"])
def _opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "openat2":
        monkeypatch.setattr(extension, "_extension", None)
    if request.param == "each part":
        monkeypatch.setattr(beneath, "_openat2", None)


@pytest.fixture
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that replace what the extension does."""
    monkeypatch.setattr(extension, "_extension", None)


@pytest.fixture
def store(tmp_path: Path, _opening: None) -> DirectoryBackend:
    """A store with all objects, in tmp_path/store."""
    backend = DirectoryBackend(str(tmp_path / "store"))
    for body in BODIES:
        backend.write(object_key(digest(body)), body)
    return backend


def gone(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes()[1:])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    """To a file outside that has the right bytes."""
    outside = path.parents[5] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def linked_shard(path: Path) -> None:
    outside = path.parents[5] / "outside"
    shutil.move(path.parents[1], outside)
    path.parents[1].symlink_to(outside)


FAULTS: Mapping[Callable[[Path], None], str] = {
    gone: "ObjectMissing",
    flipped: "IntegrityError",
    longer: "IntegrityError",
    shorter: "IntegrityError",
    empty: "IntegrityError",
    fifo: "NotAnObject",
    folder: "NotAnObject",
    link: "NotAnObject",
    linked_shard: "StoreFault",
}

faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


def errors(outcome: BatchOutcome) -> dict[Address, str]:
    return {failure.address: failure.error for failure in outcome.failures}


@faults
def test_a_verify_finds_exactly_the_wrong_object(
    store: DirectoryBackend, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    fault(tmp_path / "store" / object_key(VICTIM))
    source = SnapshotStore(store)

    outcome = verify_batch(source, source, SIZES, Quiet())

    assert errors(outcome) == {VICTIM: FAULTS[fault]}
    assert outcome.present == len(SIZES) - 1


@faults
def test_a_copy_brings_all_but_the_wrong_object(
    store: DirectoryBackend, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    fault(tmp_path / "store" / object_key(VICTIM))
    copy = SnapshotStore(DirectoryBackend(str(tmp_path / "copy")))

    outcome = copy_batch(SnapshotStore(store), copy, SIZES, Quiet())

    assert errors(outcome) == {VICTIM: FAULTS[fault]}
    assert outcome.copied == len(SIZES) - 1
    for body in BODIES:
        if (address := digest(body)) != VICTIM:
            assert copy.get_object(address) == body
    assert not copy.has_object(VICTIM)


def test_an_object_is_not_taken_for_intact_by_its_first_bytes(store: DirectoryBackend) -> None:
    """A manifest may state any size, and what is read is cut off behind it."""
    key = object_key(VICTIM)
    store.write(key, BODIES[50] + b"more")
    source = SnapshotStore(store)

    outcome = verify_batch(source, source, {VICTIM: len(BODIES[50]) - 1}, Quiet())

    assert errors(outcome) == {VICTIM: "IntegrityError"}


@pytest.mark.parametrize("size", [0, 1, SHORT_BYTES, 2**64 - 1])
def test_any_stated_size_will_do(store: DirectoryBackend, tmp_path: Path, size: int) -> None:
    source = SnapshotStore(store)
    copy = SnapshotStore(DirectoryBackend(str(tmp_path / "copy")))

    assert not verify_batch(source, source, {VICTIM: size}, Quiet()).failures
    assert copy_batch(source, copy, {VICTIM: size}, Quiet()).bytes_copied == len(BODIES[50])


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("at", [0, 1, 40, 100])
def test_what_a_full_destination_took_is_counted_and_the_rest_is_refused(
    store: DirectoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    left = at

    class Full(FileUpload):
        def write(self, chunk: Buffer) -> None:
            nonlocal left
            if not left:
                raise StoreFull("file:///copy", "", "no space left on device")
            left -= 1
            super().write(chunk)

    monkeypatch.setattr(directory_backend, "FileUpload", Full)
    copy = SnapshotStore(DirectoryBackend(str(tmp_path / "copy")))

    outcome = copy_batch(SnapshotStore(store), copy, SIZES, Quiet())

    assert outcome.copied == at
    assert set(errors(outcome).values()) == {"StoreFull"}
    assert len(outcome.failures) == len(SIZES) - at
    assert sum(map(copy.has_object, SIZES)) == at
    assert not list((tmp_path / "copy").rglob(".tmp-*"))


class Stop(BaseException):
    """What the owner of some work raises to end it."""


@pytest.mark.parametrize("checks", [1, 3, 7])
def test_a_stop_leaves_no_temporary_file_and_no_descriptor(
    store: DirectoryBackend, tmp_path: Path, checks: int
) -> None:
    left = checks

    def check() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Stop

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Stop), interruptible(check):
        copy_batch(
            SnapshotStore(store), SnapshotStore(DirectoryBackend(str(tmp_path / "copy"))), SIZES, Quiet()
        )

    assert not list((tmp_path / "copy").rglob(".tmp-*"))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the root of the store stays open


class Watching(ForwardingBackend):
    """A wrapper that sees each call, as one that limits calls does."""

    def __init__(self, inner: DirectoryBackend) -> None:
        super().__init__(inner)
        self.fetched: list[str] = []

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        self.fetched.append(key)
        return self.inner.fetch(key, size_hint)


def test_a_wrapper_sees_each_object(store: DirectoryBackend) -> None:
    watching = Watching(store)
    source = SnapshotStore(watching)

    assert not verify_batch(source, source, SIZES, Quiet()).failures
    assert len(watching.fetched) == len(SIZES)


# Files of a tree.


@pytest.fixture
def tree(tmp_path: Path, _opening: None) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for number, body in enumerate(BODIES[:60]):
        (root / "sub" / f"{number:03}").write_bytes(body)
    return root


def read(root: Path, names: Sequence[str], size: int = SHORT_BYTES) -> list[bytes | None]:
    tree = TreeBackend(TreePlace(str(root)))
    found = read_files(tree, [f"./sub/{name}" for name in names], [size] * len(names))
    for name, one in zip(names, found, strict=True):
        if one is not None:
            alone = read_file(tree, f"./sub/{name}")
            assert one == alone
            one.forget()
            alone.forget()
    return [None if one is None else one.data for one in found]


def test_short_files_are_read_as_one_by_one(tree: Path) -> None:
    assert read(tree, [f"{number:03}" for number in range(60)]) == BODIES[:60]


def test_files_that_need_a_closer_look_are_left_out(tree: Path) -> None:
    sub = tree / "sub"
    (sub / "link").symlink_to("001")
    os.mkfifo(sub / "fifo")
    (sub / "long").write_bytes(bytes(SHORT_BYTES + 1))

    assert read(tree, ["link", "fifo", "long", "absent", "", "002"]) == [None] * 5 + [BODIES[2]]


@pytest.mark.usefixtures("_uncompiled")
def test_a_file_that_changes_while_it_is_read_is_left_out(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread

    def changing(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        if data == BODIES[7]:
            (tree / "sub" / "007").write_bytes(b"y" * len(data))
        return data

    monkeypatch.setattr(os, "pread", changing)
    backend = TreeBackend(TreePlace(str(tree)))

    assert backend.fetch_many(["./sub/006", "./sub/007", "./sub/008"], [999] * 3) == [
        BODIES[6],
        None,
        BODIES[8],
    ]
