"""
Kill the repair of a store before every system call and around every request that writes.

At each point, every object holds its wrong bytes, the right ones, or is absent as it was; nothing of what was there is
lost; and the next run repairs the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from snapferry.stores.address import MANIFESTS, OBJECTS, QUARANTINE, SnapshotId, manifest_key, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from snapferry.workers.copying.commit import publish_snapshots
from snapferry.workers.copying.transfer.heal import Healing
from tests.opening import open_backend, open_store
from tests.sample import make_store, tree
from tests.servers import S3Server
from tests.unit.test_heal_batch import Noted

from .test_kill_points import DiesAtCall, Quiet, clear, die_at_system_call, run_and_die

FILES = {f"./f{n}": bytes([n + 1]) * (n * 100 + 5) for n in range(3)} | {"./big": os.urandom(300_000)}
WRONG = {
    "./f1": FILES["./f1"][:50],
    "./big": FILES["./big"][:-1] + b"!",
}


def heal(source: SnapshotStore, destination: SnapshotStore, snapshot: SnapshotId) -> None:
    with source.read_manifest(snapshot) as manifest:
        objects = manifest.objects()
    outcome = Healing(Noted()).run(source, destination, objects, Quiet())
    assert not outcome.failures
    (end,) = publish_snapshots(source, destination, [snapshot]).values()
    assert not end.missing


def spoil(
    destination: Callable[[], Backend], source: SnapshotStore, snapshot: SnapshotId
) -> dict[str, bytes]:
    """Fill the destination with wrong objects, a missing one and a wrong manifest; return what is wrong, by key."""
    backend = destination()
    clear(backend)
    wrong: dict[str, bytes] = {object_key(digest(FILES[name])): data for name, data in WRONG.items()}
    wrong[manifest_key(snapshot)] = b"a wrong manifest"
    store = SnapshotStore(backend)
    store.put_object(digest(FILES["./f0"]), FILES["./f0"])
    for key, data in wrong.items():
        backend.write(key, data)
    return wrong


def read(backend: Backend, key: str) -> bytes:
    with backend.open(key) as reader:
        return b"".join(iter(partial(reader.read, 1 << 20), b""))


def kill_at_every_point(
    source: SnapshotStore,
    destination: Callable[[], Backend],
    dying: Callable[[int], Backend],
    snapshot: SnapshotId,
    quarantine: Callable[[], list[bytes]],
    forget: Callable[[], None],
) -> int:
    right: dict[str, bytes] = {
        **{object_key(digest(data)): data for data in FILES.values()},
        manifest_key(snapshot): source.get_manifest(snapshot),
    }
    for point in range(1000):
        forget()
        wrong = spoil(destination, source, snapshot)
        killed = run_and_die(partial(_attempt, source, dying, point, snapshot))
        assert_nothing_is_lost(destination(), wrong, right, quarantine())
        if not killed:
            assert contents(destination()) == right
            return point
        heal(source, SnapshotStore(destination()), snapshot)
        assert contents(destination()) == right
        assert_nothing_is_lost(destination(), wrong, right, quarantine())
        assert SnapshotStore(destination()).get_manifest(snapshot) == right[manifest_key(snapshot)]
    raise AssertionError("the repair never got through")


def _attempt(
    source: SnapshotStore, dying: Callable[[int], Backend], point: int, snapshot: SnapshotId
) -> None:
    heal(source, SnapshotStore(dying(point)), snapshot)


def contents(backend: Backend) -> dict[str, bytes]:
    keys = [key for space in (OBJECTS, MANIFESTS) for key, *_ in backend.keys(space)]
    return {key: read(backend, key) for key in keys if "/.tmp-" not in key}


def assert_nothing_is_lost(
    backend: Backend, wrong: Mapping[str, bytes], right: Mapping[str, bytes], kept: list[bytes]
) -> None:
    found = contents(backend)
    assert found.keys() <= right.keys()
    for key, data in found.items():
        assert data == right[key] or data == wrong.get(key), key
    for key, data in wrong.items():
        assert found.get(key) == data or data in kept, key


def test_the_repair_of_a_directory_survives_a_kill_before_every_system_call(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", FILES)
    url = parse_url(str(tmp_path / "b"))

    def dying(point: int) -> Backend:
        die_at_system_call(point)
        return open_backend(url)

    def quarantine() -> list[bytes]:
        found = tree(tmp_path / "b") if (tmp_path / "b").exists() else {}
        return [data for path, data in found.items() if path.startswith(QUARANTINE)]

    points = kill_at_every_point(
        open_store(str(tmp_path / "a")), lambda: open_backend(url), dying, snapshot, quarantine,
        lambda: shutil.rmtree(tmp_path / "b" / QUARANTINE, ignore_errors=True),
    )  # fmt: skip

    assert points > len(FILES) * 6


@pytest.mark.parametrize("server", ["rclone_memory_s3", pytest.param("moto_s3", marks=pytest.mark.slow)])
def test_the_repair_of_a_bucket_survives_a_kill_around_every_request_that_writes(
    tmp_path: Path, request: pytest.FixtureRequest, server: str
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    url = parse_url(s3.url(s3.make_bucket(), "store"))
    snapshot = make_store(tmp_path / "a", FILES)

    def quarantine() -> list[bytes]:
        backend = open_backend(url)
        return [read(backend, key) for key, *_ in backend.keys(QUARANTINE)]

    def forget() -> None:
        backend = open_backend(url)
        for key, *_ in list(backend.keys(QUARANTINE)):
            backend.delete(key)

    points = kill_at_every_point(
        open_store(str(tmp_path / "a")),
        lambda: open_backend(url),
        lambda point: DiesAtCall(open_backend(url), point),
        snapshot,
        quarantine,
        forget,
    )

    assert points > len(FILES)
