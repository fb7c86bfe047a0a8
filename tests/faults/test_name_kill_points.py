"""Kill the writer of a name before and after every step; the name is then the previous one or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from snapferry.orchestrator.driving.steps.names import carry_names, remove_names
from snapferry.stores.backend import Backend
from snapferry.stores.names.name import NameRecord, parse_name
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from tests.conformance.names_contract import NIGHTLY, ORIGIN, publish
from tests.opening import open_backend
from tests.sample import tree
from tests.servers import S3Server

from .test_kill_points import DiesAtCall, die_at_system_call, run_and_die

ENOUGH = 100


class DiesAtNames(DiesAtCall):
    """Kills this process also before and after a deletion."""

    def delete(self, key: str) -> None:
        self._fuse.burn()
        self.inner.delete(key)
        self._fuse.burn()


def kill_at_every_point(opened: Callable[[], Backend], dying: Callable[[int], Backend]) -> int:
    """
    Give a name, move it and delete it, each killed at point 0, 1, 2, ... until it gets through.

    Return how many points there were.
    """
    store = SnapshotStore(opened())
    first, second = NameRecord(publish(store)), NameRecord(publish(store, b"other bytes"))
    points = 0
    for before, after in ((None, first), (first, second), (second, None)):
        for point in range(ENOUGH):
            if before is None:
                store.names.delete(NIGHTLY)
            else:
                store.names.write(NIGHTLY, before)

            killed = run_and_die(partial(_change, dying, point, after))

            seen = SnapshotStore(opened())
            assert seen.names.find(NIGHTLY) in (before, after)
            assert [one.error for one in seen.names.listed().values() if one.error] == []
            assert set(seen.list_manifest_ids()) == {first.snapshot_id, second.snapshot_id}
            if not killed:
                assert seen.names.find(NIGHTLY) == after
                points += point
                break
            # The same command again completes it.
            _apply(seen, after)
            assert seen.names.find(NIGHTLY) == after
        else:
            raise AssertionError("the change never got through")
    return points


def _change(dying: Callable[[int], Backend], point: int, record: NameRecord | None) -> None:
    _apply(SnapshotStore(dying(point)), record)


def _apply(store: SnapshotStore, record: NameRecord | None) -> None:
    if record is None:
        store.names.delete(NIGHTLY)
    else:
        store.names.write(NIGHTLY, record)


def test_a_directory_keeps_whole_names_whatever_call_is_the_last_one(tmp_path: Path) -> None:
    url = parse_url(str(tmp_path))

    def dying(point: int) -> Backend:
        die_at_system_call(point)
        return open_backend(url)

    assert kill_at_every_point(lambda: open_backend(url), dying) > 10
    # The next writer removes what the dead ones left.
    store = SnapshotStore(open_backend(url))
    store.names.write(NIGHTLY, NameRecord(store.list_manifest_ids()[0]))
    assert sorted(os.listdir(tmp_path / ".names")) == [".lock", NIGHTLY]
    assert [path for path in tree(tmp_path) if ".tmp-" in path] == []


def test_a_bucket_keeps_whole_names_whatever_request_is_the_last_one(rclone_memory_s3: S3Server) -> None:
    url = parse_url(rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "store"))

    points = kill_at_every_point(
        lambda: open_backend(url), lambda point: DiesAtNames(open_backend(url), point)
    )

    assert points == 6


def test_a_job_that_dies_among_the_names_is_completed_by_the_next_one(tmp_path: Path) -> None:
    """Names are moved, added and removed; at every point each is whole and of a snapshot that is there."""
    here, there = parse_url(str(tmp_path / "a")), parse_url(str(tmp_path / "b"))
    source, destination = SnapshotStore(open_backend(here)), SnapshotStore(open_backend(there))
    first, second = (publish(source, data) for data in (b"1", b"2"))
    for data in (b"1", b"2"):
        publish(destination, data)
    moved, added, gone = (parse_name(each) for each in ("moved", "new", "gone"))
    before = {moved: first, gone: first}
    after = {moved: second, added: second}
    for name in after:
        source.names.write(name, NameRecord(second))

    def run(point: int) -> None:
        dying = SnapshotStore(DiesAtNames(open_backend(there), point))
        carry_names(source, dying, ORIGIN)
        remove_names(source, dying, ORIGIN, lambda _: None)

    for point in range(ENOUGH):
        destination.names.delete(added)
        for name, snapshot in before.items():
            destination.names.write(name, NameRecord(snapshot, ORIGIN))

        killed = run_and_die(partial(run, point))

        listed = destination.names.listed()
        for name, one in listed.items():
            assert one.record is not None
            assert one.record.snapshot_id in (before.get(name), after.get(name))
            assert not one.dangling
        if not killed:
            assert {name: one.record and one.record.snapshot_id for name, one in listed.items()} == after
            assert point == 6
            return
        run(ENOUGH)
        assert set(destination.names.names()) == set(after)
    raise AssertionError("the job never got through")
