"""Copies of one object in parts, among stopped processes, hostile stores and forged keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import DataError

from snapferry.stores.backends.directory.in_parts import locks
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects import leftovers
from snapferry.stores.backends.s3.objects.in_parts import upload as s3_upload
from snapferry.stores.errors import IntegrityError, StoreUnavailable
from snapferry.stores.pools.in_parts import PartsCopy
from snapferry.stores.requests import CREATE_UPLOAD
from snapferry.workers.ledger import State
from tests.opening import open_store

from .parts_world import ADDRESS, KEY, LARGE, PART, PARTS, World, kind_fixture, world_fixture  # noqa: F401 - pytest finds them here

pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.mark.parametrize("kind", ["s3"])
def test_wrong_bytes_that_cannot_be_deleted_are_not_counted_as_copied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has other bytes than were sent, and does not let them be deleted."""

    def wrong(bucket: Bucket, key: str, *_: object) -> None:
        world.server.client.put_object(Bucket=world.bucket, Key=bucket.full_key(key), Body=b"wrong")
        raise IntegrityError(bucket.label, key, "the server stored other bytes, which cannot be deleted")

    monkeypatch.setattr(s3_upload, "confirm_whole", wrong)
    said = world.run()
    assert said.startswith("1 copied"), said
    world.assert_copied()


@pytest.mark.parametrize("field", ["value", "name"])
def test_a_damaged_note_of_the_job_costs_only_time(world: World, field: str) -> None:
    client = world.ledger.client
    if field == "value":
        client.hset("snapferry:job:job:parts", ADDRESS, b"\xff\xfe")
    else:
        client.hset("snapferry:job:job:parts", b"\xff", b"\xff")
    said = world.run()
    assert said.startswith("1 copied"), said
    assert open_store(world.to).get_object(ADDRESS) == LARGE
    if field == "name":
        with pytest.raises(DataError):
            world.ledger.begun_parts("job")


def test_a_note_of_the_job_of_another_type_costs_only_time(world: World) -> None:
    world.ledger.client.set("snapferry:job:job:parts", "x")
    said = world.run()
    assert said.startswith("1 copied"), said
    assert open_store(world.to).get_object(ADDRESS) == LARGE


def test_a_holder_that_is_no_text_costs_only_time(world: World) -> None:
    def forge(part: int) -> None:
        world.ledger.client.hset(world.of().keys[1], f"{part:05}", b"\xff\xfe")

    world.before = lambda part: forge(part) if part == 3 else None
    said = world.run()
    assert said.startswith("1 copied"), said
    world.assert_copied()


def note_path(world: World) -> Path:
    (found,) = Path(world.to).rglob(".parts-*.note")
    return found


def change_note(world: World, **changes: Any) -> None:
    if world.to.startswith("s3"):
        listed = world.server.client.list_objects_v2(Bucket=world.bucket, Prefix="b/.objects/.s")
        (key,) = [one["Key"] for one in listed["Contents"]]
        body = world.server.client.get_object(Bucket=world.bucket, Key=key)["Body"].read()
        changed = json.dumps(json.loads(body) | changes).encode()
        world.server.client.put_object(Bucket=world.bucket, Key=key, Body=changed)
    else:
        path = note_path(world)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def paused_half_way(world: World) -> None:
    world.before = lambda part: world.ledger.pause("job", paused=True) if part == 4 else None
    world.run()
    world.ledger.pause("job", paused=False)
    world.before = lambda _: None
    world.copied.clear()


@pytest.mark.parametrize(
    "changes",
    [
        {"part_bytes": 8 * PART},
        {"part_bytes": 2**60, "length": 2**60},
        {"part_bytes": 2**50, "length": 2**63},
        {"length": len(LARGE) + 1},
        {"length": 2**63, "part_bytes": 2**62},
        {"version": "x"},
        {"version": "\ud800"},
        {"version": 'x"\r\nHost: y'},
        {"upload": "../x"},
        {"upload": "\ud800"},
        {"source": "elsewhere"},
        {"secret": "00"},
        {"form": 2},
    ],
)
def test_a_note_that_was_changed_costs_only_time(world: World, changes: dict[str, Any]) -> None:
    paused_half_way(world)
    change_note(world, **changes)
    largest = 0

    def before(part: int) -> None:
        nonlocal largest
        with world.attached() as copy:
            largest = max(largest, copy.shape.part_bytes)

    world.before = before
    world.join()
    said = world.run()
    assert said.startswith("1 copied"), said
    assert open_store(world.to).get_object(ADDRESS) == LARGE
    assert largest <= PART


class Hangs(BaseException):
    """The test takes too long."""


STOPPED_HOLDER = """
import fcntl, os, signal, sys
sys.path[:0] = {path!r}
from snapferry.stores.backends.directory.in_parts.locks import locked
descriptor = os.open({file!r}, os.O_RDWR)
with locked(descriptor, {start}, {length}):
    os.write(1, b"held\\n")
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize("kind", ["file"])
def test_a_stopped_process_with_a_lock_delays_the_copy_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 1.0)
    holders: list[subprocess.Popen[str]] = []

    def hold(part: int) -> None:
        if part == 5 and not holders:
            (file,) = [path for path in Path(world.to).rglob(".parts-*") if not path.name.endswith(".note")]
            code = STOPPED_HOLDER.format(path=sys.path, file=str(file), start=9 * PART, length=PART)
            holders.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
            assert holders[0].stdout is not None
            assert holders[0].stdout.readline() == "held\n"

    world.before = hold

    def hangs(*_: object) -> None:
        raise Hangs

    timer = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(25)
    try:
        assert world.run().startswith("1 copied")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, timer)
        for holder in holders:
            with holder:
                holder.kill()
    world.assert_copied()


@pytest.mark.parametrize("what", ["link", "hard link", "fifo", "folder", "dangling", "huge"])
@pytest.mark.parametrize("place", ["note", "file"])
@pytest.mark.parametrize("kind", ["file"])
def test_something_else_in_the_place_of_note_or_file(
    world: World, tmp_path: Path, what: str, place: str
) -> None:
    paused_half_way(world)
    note = note_path(world)
    (file,) = [path for path in Path(world.to).rglob(".parts-*") if path != note]
    path = note if place == "note" else file
    victim = tmp_path / "victim"
    victim.write_bytes(file.read_bytes())
    if what == "huge":
        if place == "file":
            os.truncate(path, 2**40)
        else:
            os.truncate(path, 2**30)
    else:
        path.unlink()
        if what == "link":
            path.symlink_to(victim)
        elif what == "hard link":
            path.hardlink_to(victim)
        elif what == "dangling":
            path.symlink_to(tmp_path / "nowhere")
        elif what == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    before = victim.read_bytes()
    said = world.run()
    assert said.startswith("1 copied"), said
    assert open_store(world.to).get_object(ADDRESS) == LARGE
    assert victim.read_bytes() == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["file"])
def test_an_upload_that_ends_leaves_the_note_of_another(world: World) -> None:
    """Two owners began at the same time: the second one's note took the place of the first one's."""
    source, destination = open_store(world.batch.source.url).objects, open_store(world.to).objects
    first = PartsCopy.begin(source, destination, ADDRESS, "job", len(LARGE), PART)
    second = PartsCopy.begin(source, destination, ADDRESS, "job", len(LARGE), PART)
    assert first is not None
    assert second is not None
    first.abort()
    with world.attached() as joined:
        assert joined.name == second.name
    second.abort()
    assert world.left_over() == []


@pytest.mark.parametrize("what", ["link", "fifo"])
@pytest.mark.parametrize("kind", ["file"])
def test_a_link_does_not_keep_lost_files_from_being_swept(world: World, what: str) -> None:
    folder = (Path(world.to) / KEY).parent
    folder.mkdir(parents=True)
    lost = folder / f".parts-{'0' * 24}"
    lost.write_bytes(b"lost")
    os.utime(lost, (0, time.time() - 3600))
    link = folder / f".parts-{'1' * 24}.note"
    link.symlink_to("x") if what == "link" else os.mkfifo(link)
    assert world.run().startswith("1 copied")
    assert not lost.exists()


def test_what_is_left_is_removed_when_the_store_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_half_way(world)
    world.ledger.cancel("job")
    world.ledger.advance("job", State.CANCELLED)
    assert world.left_over()
    message = world.message

    with monkeypatch.context() as away:
        if world.to.startswith("s3"):

            def call(*_: object, **__: object) -> None:
                raise StoreUnavailable("b", "", "does not answer")

            away.setattr(Bucket, "call", call)
            away.setattr(Bucket, "direct_or_boto", call)
        else:
            Path(world.to).rename(f"{world.to}.away")
            Path(world.to).mkdir()
        assert "parts may be left" in world.join(message)
    if not world.to.startswith("s3"):
        Path(world.to).rmdir()
        Path(f"{world.to}.away").rename(world.to)
    assert world.ledger.begun_parts("job"), "forgotten"
    assert "nothing is left" in world.join(message)
    world.assert_nothing()


@pytest.mark.parametrize("kind", ["s3"])
def test_uploads_of_a_dead_worker_to_an_object_that_is_present_are_aborted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "requests_to_upload", lambda _: {CREATE_UPLOAD: 1})
    open_store(world.to).put_object(ADDRESS, LARGE)
    world.server.client.create_multipart_upload(Bucket=world.bucket, Key=f"b/{KEY}")

    world.ledger.begin(world.batch, "gone-1-2#0@w")
    world.ledger.client.delete("snapferry:job:job:leases", "snapferry:job:job:holders")
    said = world.run()
    assert said.startswith("0 copied, 1 present"), said
    assert world.server.unfinished_uploads(world.bucket) == []


@pytest.mark.parametrize("kind", ["s3", "file"])
@pytest.mark.parametrize("size", [2**63 - 1, 5 * 2**40, 2**40])
def test_a_source_that_announces_what_it_has_not(
    world: World, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    call = Bucket.call

    def lying(self: Bucket, name: str, **parameters: Any) -> Any:
        answer = call(self, name, **parameters)
        if name == "head_object" and "/.objects" in parameters["Key"] and parameters["Key"].startswith("a/"):
            answer["ContentLength"] = size
        return answer

    monkeypatch.setattr(Bucket, "call", lying)
    world.batch = world.batch.model_copy(update={"sizes": (size,)})
    world.run()
    left = [one for one in world.left_over() if not one.startswith("snapferry:")]
    assert left == []


def test_a_worker_that_has_joined_leaves_in_time(world: World) -> None:
    """Else the broker would deliver its message to more and more workers, while other jobs wait."""
    found: list[str] = []

    def join(part: int) -> None:
        if part == 3 and not found:
            found.append("")
            found.append(world.join(stay_s=0.0))

    world.before = join
    assert world.run().startswith("1 copied")
    assert found[1] == "stopped: JobStopped"
    world.assert_copied()


def test_a_run_that_lost_its_lease_leaves_no_keys(world: World) -> None:
    """It offers parts that it misses, after another run has made the object visible and removed the keys."""

    def end(part: int) -> None:
        if part == 5:
            world.before = lambda _: None
            of, others = world.of(), world.attached()
            with others:
                others.abort()
            world.ledger.end_parts("job", ADDRESS)
            open_store(world.to).put_object(ADDRESS, LARGE)
            world.ledger.offer_parts(of, range(PARTS))

    world.before = end
    assert world.run().startswith("1 copied")
    world.assert_copied()


def test_a_redis_that_is_flushed_in_the_middle_leaves_nothing(world: World) -> None:
    world.before = lambda part: world.ledger.client.flushdb() if part == 5 else None
    world.run()
    store = open_store(world.to)
    assert not store.has_object(ADDRESS) or store.get_object(ADDRESS) == LARGE
    assert world.left_over() == []


def test_a_record_that_went_back_in_time_costs_only_time(world: World) -> None:
    """Redis was restarted with an older copy of its data."""
    client = world.ledger.client

    def dump() -> dict[str, Any]:
        return {key: client.dump(key) for key in client.scan_iter("snapferry:*")}

    saved: list[dict[str, Any]] = []

    def back(part: int) -> None:
        if part == 3:
            saved.append(dump())
        if part == 7 and saved:
            restored = saved.pop()
            with client.pipeline() as pipe:
                pipe.delete(*client.scan_iter("snapferry:*"))
                for key, dumped in restored.items():
                    pipe.restore(key, 0, dumped)
                pipe.execute()

    world.before = back
    said = world.run()
    assert said.startswith("1 copied"), said
    world.assert_copied()
