"""Nothing below a store's directory is followed out of it, and nothing that is there is taken for absent."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.driving.steps.prune import prune
from snapferry.orchestrator.planning.surplus import surplus
from snapferry.stores.address import EMPTY_ADDRESS, MANIFESTS, Address, SnapshotId, manifest_key, object_key
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.paths import beneath
from snapferry.stores.backends.directory.paths.root import STALE_AFTER_S
from snapferry.stores.backends.directory.paths.rules import DirectoryRules
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    NotAnObject,
    ObjectMissing,
    StoreError,
    StoreFault,
)
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import Upload
from snapferry.stores.urls import parse_url
from snapferry.workers.copying.transfer import copy_batch
from snapferry.workers.messages import Prune
from snapferry.workers.outcome import BatchOutcome
from tests.sample import fill

REPOSITORY = Path(__file__).parents[2]

DATA = b"an object"
ADDRESS = digest(DATA)
KEY = object_key(ADDRESS)
SECRET = b"a secret that no store may show"


@pytest.fixture(autouse=True, params=["openat2", "each part"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open by the one call where this kernel has it, and part by part."""
    if request.param == "each part":
        monkeypatch.setattr(beneath, "_openat2", None)
    elif beneath._openat2 is None:
        pytest.skip("this kernel has no openat2")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a file system: a sync would wait for what others write to a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is no store's, with a file in it that a key could name."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(SECRET)
    return path


class Quiet:
    def begin(self, needed: list[Address]) -> None:
        """Show nothing."""

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """Show nothing."""


def copy(source: Path, destination: Path, *addresses: Address, size: int = 0) -> BatchOutcome:
    here, there = (SnapshotStore(DirectoryBackend(str(path))) for path in (source, destination))
    return copy_batch(here, there, dict.fromkeys(addresses, size), Quiet())


def tree(path: Path) -> dict[str, object]:
    """Everything below *path*: types, modes, and bytes or targets."""
    return {
        str(found.relative_to(path)): (
            found.lstat().st_mode,
            os.readlink(found) if found.is_symlink() else found.read_bytes() if found.is_file() else None,
        )
        for found in path.rglob("*")
    }


# What may be in the place of a file, and of a directory.


def link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "secret")


def dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing")


def link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def link_to_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def magic_link(path: Path, outside: Path) -> None:
    path.symlink_to("/proc/self/environ")


def relative_link(path: Path, outside: Path) -> None:
    path.symlink_to(os.path.relpath(outside / "secret", path.parent))


def link_inside(path: Path, outside: Path) -> None:
    (path.parent / "beside").write_bytes(DATA)
    path.symlink_to("beside")


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path, outside: Path) -> None:
    here = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        # A socket's path is short.
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def directory(path: Path, outside: Path) -> None:
    path.mkdir()


def wrong_bytes(path: Path, outside: Path) -> None:
    path.write_bytes(SECRET)


STRANGE: list[Callable[[Path, Path], None]] = [
    link_to_file,
    dangling_link,
    link_to_itself,
    link_to_device,
    magic_link,
    relative_link,
    link_inside,
    fifo,
    listening_socket,
    directory,
]


def plant(strange: Callable[[Path, Path], None], path: Path, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    strange(path, outside)


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("size", [0, len(DATA), 10**6])
def test_what_is_no_file_in_the_place_of_an_object_is_an_error_that_names_its_path(
    root: Path, outside: Path, strange: Callable[[Path, Path], None], size: int
) -> None:
    """Of that object alone, at a source: it is not missing there, and nothing of what it leads to is shown."""
    SnapshotStore(DirectoryBackend(str(root))).put_object(digest(b"good"), b"good")
    plant(strange, root / KEY, outside)
    backend = DirectoryBackend(str(root))

    for ask in (
        lambda: backend.size(KEY),
        lambda: backend.sizes([KEY]),
        lambda: backend.open(KEY),
        lambda: SnapshotStore(backend).get_object(ADDRESS),
        lambda: SnapshotStore(backend).objects_needed([ADDRESS]),
        lambda: SnapshotStore(backend).check_object(ADDRESS, size_hint=size),
        lambda: list(backend.keys(".objects/")),
    ):
        with pytest.raises(StoreFault) as raised:
            ask()
        assert f"{root}/{KEY} is " in raised.value.detail
        assert digest(SECRET) not in str(raised.value)
    with pytest.raises(NotAnObject):
        SnapshotStore(backend).check_object(ADDRESS, size_hint=size)
    outcome = copy(root, root.parent / "destination", ADDRESS, digest(b"good"), size=size)

    assert outcome.copied == 1
    assert [(one.address, one.error) for one in outcome.failures] == [(ADDRESS, "NotAnObject")]
    assert f"{root}/{KEY} is " in outcome.failures[0].detail
    assert not (root.parent / "destination" / KEY).exists()


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_file_at_a_destination_does_not_count_as_present(
    root: Path, outside: Path, strange: Callable[[Path, Path], None]
) -> None:
    """Even where it leads to the right bytes. The other objects are copied."""
    source = SnapshotStore(DirectoryBackend(str(root.parent / "source")))
    for data in (DATA, b"good"):
        source.put_object(digest(data), data)
    plant(strange, root / KEY, outside)
    before = tree(outside)

    outcome = copy(root.parent / "source", root, ADDRESS, digest(b"good"), size=len(DATA))

    assert (outcome.copied, outcome.present) == (1, 0)
    assert [one.address for one in outcome.failures] == [ADDRESS]
    assert f"{root}/{KEY} is " in outcome.failures[0].detail
    assert tree(outside) == before


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_file_in_the_place_of_a_manifest_is_an_error_and_deletes_nothing(
    root: Path, outside: Path, strange: Callable[[Path, Path], None]
) -> None:
    source = open_store(str(root))
    kept = fill(source, {"./a": b"a"})
    plant(strange, root / manifest_key(SnapshotId(ADDRESS)), outside)

    for ask in (
        source.list_manifest_ids,
        lambda: source.read_manifest(ADDRESS),
        lambda: source.manifests_present([ADDRESS]),
    ):
        with pytest.raises(StoreFault) as raised:
            ask()
        assert f"{root}/{manifest_key(SnapshotId(ADDRESS))} is " in raised.value.detail

    with pytest.raises(StoreFault):
        surplus(source, open_store(str(root.parent / "mirror")))
    assert source.get_manifest(kept)


# Shards.

LEVELS = [".objects", *(f".objects/{'/'.join(KEY.split('/')[1 : n + 1])}" for n in (1, 2, 3))]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("strange", STRANGE[:-1])
def test_a_shard_that_is_no_directory_is_an_error_that_names_its_path(
    root: Path, outside: Path, level: str, strange: Callable[[Path, Path], None]
) -> None:
    plant(strange, root / level, outside)
    backend, before = DirectoryBackend(str(root)), tree(outside)

    for ask in (
        lambda: backend.size(KEY),
        lambda: backend.sizes([KEY]),
        lambda: backend.open(KEY),
        lambda: backend.fetch(KEY, 10),
        lambda: backend.write(KEY, DATA),
        lambda: backend.delete(KEY),
        lambda: list(backend.keys(".objects/")),
        lambda: SnapshotStore(backend).check_object(ADDRESS),
    ):
        with pytest.raises(StoreFault) as raised:
            ask()
        assert not isinstance(raised.value, NotAnObject)
        assert f"{root}/{level} is " in raised.value.detail
    assert tree(outside) == before


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_read_written_swept_or_deleted_behind_a_link_to_a_directory(
    root: Path, outside: Path, level: str
) -> None:
    """Not even where all that is looked for is there."""
    behind = outside / KEY.removeprefix(level).lstrip("/")
    behind.parent.mkdir(parents=True, exist_ok=True)
    behind.write_bytes(DATA)
    stale = behind.parent / ".tmp-another-1-0123456789ab-0"
    stale.write_bytes(b"")
    os.utime(stale, (1, 1))
    (root / level).parent.mkdir(parents=True, exist_ok=True)
    (root / level).symlink_to(outside)
    before = tree(outside)
    backend = DirectoryBackend(str(root))

    for ask in (
        lambda: backend.size(KEY),
        lambda: backend.sizes([KEY]),
        lambda: backend.open(KEY),
        lambda: backend.fetch(KEY, len(DATA)),
        lambda: backend.write(KEY, DATA),
        lambda: backend.upload(KEY, len(DATA)),
        lambda: backend.delete(KEY),
        lambda: list(backend.keys(".objects/")),
    ):
        with pytest.raises(StoreFault, match="symbolic link"):
            ask()
    findings = list(backend.probe((".objects/", ".manifests/"), for_writing=True))

    assert tree(outside) == before
    assert (level == ".objects") == any("symbolic link" in finding.said for finding in findings)


def test_a_mirror_of_a_store_with_a_link_that_leads_nowhere_deletes_nothing(
    root: Path, tmp_path: Path
) -> None:
    """A shard of manifests was moved to another disk, which is not mounted now."""
    source, mirror = open_store(str(root)), open_store(str(tmp_path / "mirror"))
    snapshots = sorted(fill(store, {"./a": b"%d" % n}) for store in (source, mirror) for n in range(5))[::2]
    shard = (root / manifest_key(snapshots[0])).parents[2]
    shard.rename(tmp_path / "disk")
    shard.symlink_to(tmp_path / "away")
    deleted: list[str] = []

    with pytest.raises(StoreFault) as raised:
        prune(Prune(), source, mirror, deleted.extend)

    assert f"{shard} is a symbolic link" in str(raised.value)
    assert deleted == []
    assert mirror.list_manifest_ids() == snapshots


@pytest.mark.parametrize("strange", [*STRANGE, lambda path, _: path.mkdir(mode=0)])
def test_a_stranger_beside_the_shards_is_not_looked_into(
    root: Path, outside: Path, strange: Callable[[Path, Path], None]
) -> None:
    store = open_store(str(root))
    snapshot = fill(store, {"./a": b"a"})
    for folder in (root / MANIFESTS, (root / manifest_key(snapshot)).parents[1]):
        for name in ("lost+found", "foo", "ABC", "ab", "abcd", "a\udcff", ".snapshot", "ab."):
            plant(strange, folder / name, outside)

    assert store.list_manifest_ids() == [snapshot]


def test_strangers_beside_manifests_are_passed_over(root: Path, outside: Path) -> None:
    store = open_store(str(root))
    snapshot = fill(store, {"./a": b"a"})
    folder = (root / manifest_key(snapshot)).parent
    for number, strange in enumerate(STRANGE):
        strange(folder / f"stranger-{number}", outside)

    assert store.list_manifest_ids() == [snapshot]


LISTS = """
import sys
from snapferry.stores.errors import AccessDenied
from snapferry.stores.opening import open_store
try:
    open_store(sys.argv[1]).list_manifest_ids()
except AccessDenied as error:
    print(error.detail)
"""


def test_a_shard_that_cannot_be_read_is_an_error_that_names_it(root: Path) -> None:
    shard = (root / manifest_key(fill(open_store(str(root)), {"./a": b"a"}))).parents[1]
    # Root without its capabilities is an owner like any other: permissions bind it.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    shard.chmod(0)

    try:
        command = [*plain, sys.executable, "-c", LISTS, str(root)]
        said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    finally:
        shard.chmod(0o755)

    assert said == f"{shard}: Permission denied\n"


# Races.


def test_a_shard_that_turns_into_a_link_and_back_lets_nothing_out(root: Path, outside: Path) -> None:
    """While objects are written, asked for, swept and deleted in it."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    if exchange is None:
        pytest.skip("two names cannot be exchanged here")
    shard, link = root / KEY.rpartition("/")[0].rpartition("/")[0], root / "link"
    shard.mkdir(parents=True)
    (outside / KEY.split("/")[3]).mkdir()
    link.symlink_to(outside)
    before = tree(outside)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            exchange(-100, bytes(shard), -100, bytes(link), 2)

    flipping = threading.Thread(target=flip)
    flipping.start()
    done = refused = 0
    try:
        while done < 30 or refused < 30:
            backend = DirectoryBackend(str(root))
            try:
                backend.write(KEY, DATA)
                backend.sizes([KEY])
                list(backend.keys(".objects/"))
                backend.delete(KEY)
            except StoreError:
                refused += 1
            else:
                done += 1
    finally:
        stop.set()
        flipping.join()
    assert tree(outside) == before


def staged(backend: DirectoryBackend) -> Upload:
    upload = backend.upload(KEY, len(DATA))
    upload.write(DATA)
    upload.finish()
    return upload


def test_a_folder_that_is_replaced_by_a_link_before_a_commit_is_not_left(root: Path, outside: Path) -> None:
    backend = DirectoryBackend(str(root))
    uploads = [staged(backend), backend.upload(object_key(EMPTY_ADDRESS), 0)]
    (root / ".objects").rename(root / "moved")
    (root / ".objects").symlink_to(outside)
    before = tree(outside)

    backend.commit_all(uploads)

    assert tree(outside) == before
    assert (root / "moved" / KEY.removeprefix(".objects/")).read_bytes() == DATA


def test_a_directory_that_something_removes_between_two_writes_is_made_again(root: Path) -> None:
    backend = DirectoryBackend(str(root))
    beside = KEY.rpartition("/")[0].rpartition("/")[0] + "/fff/" + KEY.rpartition("/")[2]
    backend.write(KEY, DATA)
    backend.delete(KEY)
    for folder in (root / KEY).parents[:4]:
        folder.rmdir()

    backend.write(beside, DATA)

    assert (root / beside).read_bytes() == DATA


@pytest.mark.parametrize("number", [*range(len(STRANGE))])
def test_a_sweep_touches_nothing_but_files(root: Path, outside: Path, number: int) -> None:
    name = f".tmp-another-1-0123456789ab-{number}"
    plant(STRANGE[number], (root / KEY).parent / name, outside)
    path = (root / KEY).parent / name
    os.utime(path, (1, 1), follow_symlinks=False)
    there, before = path.lstat(), tree(outside)

    DirectoryBackend(str(root)).write(KEY, DATA)

    assert stat.S_IFMT(path.lstat().st_mode) == stat.S_IFMT(there.st_mode)
    assert tree(outside) == before
    assert STALE_AFTER_S > 0


@pytest.mark.parametrize("name", [".snapferry-probe-another-1-0123456789ab-0"])
def test_probes_follow_nothing(root: Path, outside: Path, name: str) -> None:
    (root / ".objects").mkdir()
    for folder in (root, root / ".objects"):
        (folder / name).symlink_to(outside)
        os.utime(folder / name, (1, 1), follow_symlinks=False)
    before = tree(outside)

    assert list(DirectoryBackend(str(root)).probe((".objects/", ".manifests/"), for_writing=True))

    assert tree(outside) == before


@pytest.mark.parametrize("strange", STRANGE)
def test_a_clone_is_tried_with_files_only(
    root: Path, outside: Path, strange: Callable[[Path, Path], None]
) -> None:
    plant(strange, root / KEY, outside)
    destination = root.parent / "destination"
    destination.mkdir()

    findings = list(DirectoryBackend(str(destination)).probe_beside(DirectoryBackend(str(root)), KEY))

    assert [finding.check for finding in findings] == ["pair.clones"]
    assert f"{root}/{KEY} is " in findings[0].said
    assert list(destination.iterdir()) == []


# Files whose bytes have no end.


def test_a_file_that_gives_more_than_its_length_is_given_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a file system that makes them up do, which says that they are empty."""
    plant(wrong_bytes, root / KEY, root)
    os.truncate(root / KEY, 0)
    reads = 0

    def endless(_: int, buffers: list[Any]) -> int:
        nonlocal reads
        reads += 1
        return len(buffers[0])

    monkeypatch.setattr(os, "readv", endless)
    monkeypatch.setattr(os, "read", lambda _, size: bytes(size))
    (root.parent / "destination").mkdir()
    source, destination = (
        SnapshotStore(DirectoryBackend(str(path))) for path in (root, root.parent / "destination")
    )

    with pytest.raises(StoreFault, match="is longer than 0 bytes"):
        destination.copy_object(source, ADDRESS, size_hint=10**6)
    with pytest.raises(StoreFault, match="is longer than 0 bytes"):
        source.get_object(ADDRESS)

    assert reads == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_file_with_a_hole_that_is_far_longer_than_planned_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """It takes no room at the source, and would fill the destination."""
    size = 10**13
    if not known:
        monkeypatch.setattr(DirectoryBackend, "free_bytes", lambda _: None)
    plant(wrong_bytes, root / KEY, root)
    try:
        os.truncate(root / KEY, size)
    except OSError:
        pytest.skip("this file system has no files of that length")
    destination = root.parent / "destination"

    outcome = copy(root, destination, ADDRESS)

    assert [one.error for one in outcome.failures] == ["StoreFault"]
    assert f"{size:,}" in outcome.failures[0].detail
    assert tree(destination) == {}


# Operators who allow links.


@pytest.fixture
def disks(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "disk-1", tmp_path / "disk-2"]
    for path in paths:
        path.mkdir()
    return paths


def allowing(root: Path, *paths: Path) -> DirectoryBackend:
    return DirectoryBackend(str(root), rules=DirectoryRules(follow_into=tuple(map(str, paths))))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("target", ["", "below/it"])
def test_a_link_into_an_allowed_directory_is_followed(
    root: Path, disks: list[Path], level: str, target: str
) -> None:
    (disks[1] / target).mkdir(parents=True, exist_ok=True)
    (root / level).parent.mkdir(parents=True, exist_ok=True)
    (root / level).symlink_to(disks[1] / target)
    backend = allowing(root, root.parent / "not-mounted", *disks)

    uploads = [staged(backend)]
    backend.commit_all(uploads)
    backend.flush()

    behind = disks[1] / target / KEY.removeprefix(level).lstrip("/")
    assert behind.read_bytes() == DATA
    assert [found.key for found in backend.keys(".objects/")] == [KEY]
    assert (backend.size(KEY), backend.sizes([KEY, object_key(EMPTY_ADDRESS)])) == (
        len(DATA),
        [len(DATA), None],
    )
    assert SnapshotStore(backend).get_object(ADDRESS) == backend.fetch(KEY, 100) == DATA
    backend.delete(KEY)
    assert not behind.exists()
    assert backend.size(KEY) is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "target", ["outside", "not-there", "disk-1/not-there", "disk-10", "disk-1/../outside"]
)
def test_a_link_to_anywhere_else_is_not_followed(
    root: Path, outside: Path, disks: list[Path], level: str, target: str
) -> None:
    """A name that only begins like an allowed directory is another one."""
    (root.parent / "disk-10").mkdir()
    (root / level).parent.mkdir(parents=True, exist_ok=True)
    (root / level).symlink_to(root.parent / target)
    before = tree(outside)
    backend = allowing(root, *disks)

    for ask in (
        lambda: backend.write(KEY, DATA),
        lambda: backend.size(KEY),
        lambda: backend.sizes([KEY]),
        lambda: backend.open(KEY),
        lambda: backend.delete(KEY),
        lambda: list(backend.keys(".objects/")),
    ):
        with pytest.raises(StoreFault) as raised:
            ask()
        assert f"{root}/{level} is a symbolic link" in raised.value.detail
    assert tree(outside) == before
    assert list((root.parent / "disk-10").iterdir()) == []


@pytest.mark.parametrize("strange", STRANGE)
def test_behind_an_allowed_link_only_files_are_objects(
    root: Path, outside: Path, disks: list[Path], strange: Callable[[Path, Path], None]
) -> None:
    (root / ".objects").symlink_to(disks[0])
    plant(strange, disks[0] / KEY.removeprefix(".objects/"), outside)
    backend = allowing(root, *disks)

    for ask in (
        lambda: backend.size(KEY),
        lambda: backend.sizes([KEY]),
        lambda: backend.open(KEY),
        lambda: list(backend.keys(".objects/")),
    ):
        with pytest.raises(StoreFault) as raised:
            ask()
        assert KEY in raised.value.detail


def test_the_root_itself_may_be_reached_by_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)

    DirectoryBackend(str(tmp_path / "link")).write(KEY, DATA)

    assert (root / KEY).read_bytes() == DATA


# Paths with two dots, permissions, and digests.


def test_two_dots_behind_a_link_lead_where_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/below")
    url = f"file://{tmp_path}/link/../store"

    open_store(url).put_object(ADDRESS, DATA)

    assert (tmp_path / "real" / "store" / KEY).read_bytes() == DATA
    assert not (tmp_path / "store").exists()
    assert parse_url(url).same_place(parse_url(f"{tmp_path}/real/store"))


@pytest.mark.parametrize(
    ("shared", "umask", "file", "folder"),
    [
        (False, 0, 0o644, 0o755),
        (False, 0o002, 0o644, 0o755),
        (False, 0o027, 0o640, 0o750),
        (False, 0o077, 0o600, 0o700),
        (True, 0, 0o664, 0o775),
        (True, 0o022, 0o644, 0o755),
    ],
)
def test_nobody_else_may_write_to_what_is_written(
    tmp_path: Path, shared: bool, umask: int, file: int, folder: int
) -> None:
    rules = DirectoryRules(group_write=shared)
    before = os.umask(umask)
    try:
        backend = DirectoryBackend(str(tmp_path / "made" / "store"), rules=rules)
        backend.write(KEY, DATA)
        with backend.upload(object_key(EMPTY_ADDRESS), 0) as upload:
            upload.commit()
    finally:
        os.umask(before)

    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "made", *tmp_path.rglob("*"))
    }
    assert modes == {(True, folder), (False, file)}


def test_wrong_bytes_are_not_told_by_their_digest(root: Path) -> None:
    plant(wrong_bytes, root / KEY, root)
    plant(wrong_bytes, root / manifest_key(SnapshotId(ADDRESS)), root)
    store = SnapshotStore(DirectoryBackend(str(root)))

    for ask in (
        lambda: store.get_object(ADDRESS),
        lambda: store.read_manifest(ADDRESS),
        lambda: store.put_object(ADDRESS, SECRET),
    ):
        with pytest.raises(IntegrityError) as raised:
            ask()
        assert digest(SECRET) not in str(raised.value)
    outcome = copy(root, root.parent / "destination", ADDRESS)
    assert [one.error for one in outcome.failures] == ["IntegrityError"]
    assert digest(SECRET) not in outcome.failures[0].detail


def test_a_missing_object_is_still_missing(root: Path) -> None:
    with pytest.raises(ObjectMissing):
        SnapshotStore(DirectoryBackend(str(root))).get_object(ADDRESS)


def test_a_directory_that_is_mounted_read_only_is_told_from_one_without_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    backend = DirectoryBackend(str(tmp_path / "new"))
    with pytest.raises(AccessDenied, match="no permission to write to"):
        backend.check(for_writing=True)
    real = os.statvfs(tmp_path)
    read_only = os.statvfs_result((*real[:8], real.f_flag | os.ST_RDONLY, *real[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    with pytest.raises(AccessDenied, match="mounted read-only"):
        backend.check(for_writing=True)
