"""
Kill the copy after every single write, and look at what a reader of the destination then sees.

The writer is a real process that SIGKILLs itself at the chosen point, so no
``finally`` runs and nothing is tidied up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import MANIFESTS, OBJECTS, Address, SnapshotId, address_of
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.errors import ObjectMissing
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import Upload
from snapferry.stores.urls import parse_url
from snapferry.workers.copying.commit import SnapshotState, publish_snapshots
from snapferry.workers.copying.transfer import copy_batch
from tests.integration.processes import until
from tests.opening import open_backend, open_store
from tests.sample import assert_published_means_complete, make_store, tree
from tests.servers import S3Server

from .backends import Around

FILES = {f"./f{n}": bytes([n]) * (n * 100) for n in range(6)} | {"./big": os.urandom(3 * 1024 * 1024)}


class Fuse:
    """Kills this process when it is lit for the *length*-th time."""

    def __init__(self, length: int) -> None:
        self._left = length

    def burn(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class DiesAtCall(Around):
    """Kills this process before and after each call that changes the store, one point a run."""

    def __init__(self, inner: Backend, point: int) -> None:
        super().__init__(inner)
        self._fuse = Fuse(point)

    def write(self, key: str, data: bytes) -> None:
        self._fuse.burn()
        self.inner.write(key, data)
        self._fuse.burn()

    def upload(self, key: str, size_hint: int) -> Upload:
        return DiesInUpload(self.inner.upload(key, size_hint), self._fuse)


class DiesInUpload(Upload):
    """The same for the steps of an upload."""

    def __init__(self, inner: Upload, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def write(self, chunk: bytes) -> None:
        self._fuse.burn()
        self._inner.write(chunk)

    def commit(self) -> None:
        self._fuse.burn()
        self._inner.commit()
        self._fuse.burn()

    def abort(self) -> None:
        self._inner.abort()


def die_at_system_call(point: int) -> None:
    """Let this process be killed before the *point*-th call that changes the file system."""
    fuse = Fuse(point)
    # The compiled extension makes the same system calls in the same order, where nobody sees them.
    extension._extension = None
    for name in ("mkdir", "open", "write", "fsync", "link", "rename"):
        setattr(os, name, _fused(getattr(os, name), fuse))


def _fused(call: Callable[..., Any], fuse: Fuse) -> Callable[..., Any]:
    def lit(*arguments: Any, **options: Any) -> Any:
        fuse.burn()
        return call(*arguments, **options)

    return lit


class Quiet:
    """Progress that nobody watches."""

    def begin(self, needed: list[Address]) -> None:
        """Show nothing."""

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """Show nothing."""


def copy_and_commit(source: SnapshotStore, destination: SnapshotStore, snapshots: list[SnapshotId]) -> None:
    objects: dict[Address, int] = {}
    for snapshot in snapshots:
        with source.read_manifest(snapshot) as manifest:
            objects |= manifest.objects()
    outcome = copy_batch(source, destination, objects, Quiet())
    assert not outcome.failures
    ends = publish_snapshots(source, destination, snapshots)
    assert all(end.state is SnapshotState.PUBLISHED and not end.missing for end in ends.values())


def run_and_die(work: Callable[[], None]) -> bool:
    """Run *work* in a process of its own; say whether it was killed on the way."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the copy failed instead of being killed"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def kill_at_every_point(
    source: SnapshotStore,
    destination: Callable[[], Backend],
    dying: Callable[[int], Backend],
    snapshots: list[SnapshotId],
) -> int:
    """Kill a copy at point 0, 1, 2, ... until one gets through; return how many points there were."""

    def attempt(point: int) -> None:
        copy_and_commit(source, SnapshotStore(dying(point)), snapshots)

    for point in range(1000):
        clear(destination())
        killed = run_and_die(partial(attempt, point))
        seen = SnapshotStore(destination())
        assert_published_means_complete(seen)
        assert_no_partial_object(seen)
        if not killed:
            assert seen.list_manifest_ids() == sorted(snapshots)
            return point
        copy_and_commit(source, SnapshotStore(destination()), snapshots)
        assert seen.list_manifest_ids() == sorted(snapshots)
        assert_published_means_complete(seen)
    raise AssertionError("the copy never got through")


def two_snapshots(root: Path) -> list[SnapshotId]:
    """Make a store of two snapshots that share most of their objects, which are published together."""
    return [make_store(root, FILES), make_store(root, FILES | {"./own": b"own"})]


def clear(backend: Backend) -> None:
    backend.write("some/where", b"")
    for key, *_ in [*backend.keys(OBJECTS), *backend.keys(MANIFESTS)]:
        backend.delete(key)


def assert_no_partial_object(store: SnapshotStore) -> None:
    """
    Every object that is visible hashes to its address; `get_object` raises otherwise.

    What a server takes back of a request that was cut off by a death may still be listed for a moment.
    """

    def listed() -> list[str]:
        return [key for key, *_ in store.objects.keys(OBJECTS)]

    def whole_or_gone(key: str, address: str) -> bool:
        try:
            store.get_object(address)
        except ObjectMissing:
            return key not in listed()
        return True

    for key in listed():
        address = address_of(key, OBJECTS)
        if address is not None:
            until(partial(whole_or_gone, key, address), f"{key} is whole or gone")


def test_a_directory_survives_a_kill_before_every_system_call(tmp_path: Path) -> None:
    snapshots = two_snapshots(tmp_path / "a")
    destination = parse_url(str(tmp_path / "b"))

    def dying(point: int) -> Backend:
        die_at_system_call(point)
        return open_backend(destination)

    points = kill_at_every_point(
        open_store(str(tmp_path / "a")), lambda: open_backend(destination), dying, snapshots
    )

    assert points > len(FILES) * 6
    kept = {
        path: data for path, data in tree(tmp_path / "b").items() if path[0] == "." and ".tmp-" not in path
    }
    assert kept == tree(tmp_path / "a")


@pytest.mark.parametrize("server", ["rclone_memory_s3", pytest.param("moto_s3", marks=pytest.mark.slow)])
def test_a_bucket_survives_a_kill_around_every_request_that_writes(
    tmp_path: Path, request: pytest.FixtureRequest, server: str
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    url = parse_url(s3.url(s3.make_bucket(), "store"))
    snapshots = two_snapshots(tmp_path / "a")

    points = kill_at_every_point(
        open_store(str(tmp_path / "a")),
        lambda: open_backend(url),
        lambda point: DiesAtCall(open_backend(url), point),
        snapshots,
    )

    assert points > len(FILES)
