"""A large object whose parts several workers copy, with real worker processes and real servers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.stores.requests import Requests
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.ledger import JobStatus, Ledger, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.counting import Traffic, counting_proxy
from tests.opening import open_store
from tests.sample import assert_published_means_complete, fill
from tests.servers import S3Server

from .processes import PATIENCE_S, Fleet, Started, until

PART = 64 * 1024
PARTS = 24
LENGTH = PARTS * PART - 11
LARGE = random.Random(7).randbytes(LENGTH)
ADDRESS = digest(LARGE)
FILES = {"./large": LARGE, "./small": b"small"}

# Workers that take small objects for large ones. Each part takes a while, so that there is one for every worker.
SMALL_PARTS = f"""
import time, snapferry.workers.copying.parts.sizes as s
from snapferry.stores.pools.in_parts import PartsCopy
s.LARGE_BYTES, s.LEAST_PART_BYTES, s.ANY_SPEED = {PART}, {PART}, True
s.PARTS_IN_FLIGHT = 2
copy_part = PartsCopy.copy_part
def slowly(self, part, mine, record):
    time.sleep({{pause_s}})
    {{before}}
    copy_part(self, part, mine, record)
    {{after}}
PartsCopy.copy_part = slowly
"""


def small_parts(*, pause_s: float = 0.1, before: str = "pass", after: str = "pass") -> str:
    return SMALL_PARTS.format(pause_s=pause_s, before=before, after=after)


@dataclass
class World:
    """A source in a bucket with one large object, behind a proxy that counts, and a fleet."""

    fleet: Fleet
    jobs: Jobs
    server: S3Server
    proxy: S3Server
    received: Requests
    traffic: Traffic
    bucket: str
    source: SnapshotStore
    snapshot: str
    folder: Path
    client: redis.Redis

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.client, expires_s=3600)

    def destination(self, kind: str) -> str:
        return self.proxy.url(self.bucket, "b") if kind == "s3" else str(self.folder / "b")

    def submit(self, to: str, **options: Any) -> str:
        source = self.proxy.url(self.bucket, "a")
        return self.jobs.submit(JobSpec.of(*store_pair(source, to), [self.snapshot], **options))

    def wait(self, job: str) -> JobStatus:
        return self.jobs.wait(job, timeout_s=PATIENCE_S)

    @contextmanager
    def workers_named(self, *names: str, before: str = "", processes: int = 2) -> Iterator[list[Started]]:
        arguments = ("-c", str(processes))
        with ExitStack() as stack:
            yield [
                stack.enter_context(self.fleet.worker(name, *arguments, before=before or small_parts()))
                for name in names
            ]

    def read(self) -> int:
        """Return how many bytes of the large object were read from the source."""
        return self.traffic.moved(0.0, math.inf, "GetObject", f"/a/{object_key(ADDRESS)}")

    def left_over(self, to: str) -> list[str]:
        """Return what is left at a destination of copies in parts."""
        if to.startswith("s3://"):
            found = self.server.client.list_objects_v2(
                Bucket=self.bucket, Prefix="b/.objects/.snapferry-parts/"
            )
            notes = [one["Key"] for one in found.get("Contents", ())]
            return notes + self.server.unfinished_uploads(self.bucket)
        return [str(path) for path in Path(to).rglob(".*") if path.name.startswith((".parts-", ".tmp-"))]

    def keys_left(self, job: str) -> list[str]:
        return list(self.client.scan_iter(f"snapferry:job:{job}:parts*"))

    def assert_copied(self, to: str, status: JobStatus) -> None:
        assert status.state is State.DONE, status
        assert (status.copied, status.present, status.failed) == (2, 0, 0)
        assert status.bytes_copied == LENGTH + len(FILES["./small"])
        copied = open_store(to)
        assert copied.get_object(ADDRESS) == LARGE
        assert_published_means_complete(copied)
        assert self.left_over(to) == []
        assert self.keys_left(status.job_id) == []


@pytest.fixture
def world(
    rclone_memory_s3: S3Server, s3_environment: dict[str, str], redis_url: str, tmp_path: Path
) -> Iterator[World]:
    bucket = rclone_memory_s3.make_bucket()
    source = open_store(rclone_memory_s3.url(bucket, "a"))
    snapshot = fill(source, FILES)
    (tmp_path / "b").mkdir()
    traffic = Traffic()
    with (
        counting_proxy(rclone_memory_s3, traffic) as (proxy, received),
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
    ):
        fleet = Fleet(redis_url, tmp_path, dict(rclone_memory_s3.environment))
        jobs = Jobs(Settings(broker_url=redis_url))
        with fleet.orchestrator():
            yield World(
                fleet,
                jobs,
                rclone_memory_s3,
                proxy,
                received,
                traffic,
                bucket,
                source,
                snapshot,
                tmp_path,
                client,
            )


def records(worker: Started, message: str) -> list[dict[str, Any]]:
    """Return the lines of a worker's log with this message."""
    found = [json.loads(line) for line in worker.logged().splitlines()]
    return [line for line in found if line["message"] == message]


def parts_by(worker: Started) -> int:
    """Return how many parts a worker says it has copied."""
    own = [int(line["own"]) for line in records(worker, "all parts copied")]
    return sum(own) + sum(int(line["parts"]) for line in records(worker, "parts copied"))


@pytest.mark.parametrize("kind", ["s3", pytest.param("file", marks=pytest.mark.slow)])
def test_several_workers_copy_the_parts_of_one_object(world: World, kind: str) -> None:
    to = world.destination(kind)
    with world.workers_named("one", "two") as workers:
        status = world.wait(world.submit(to))
        world.assert_copied(to, status)
        until(lambda: sum(map(parts_by, workers)) == PARTS, "all workers tell what they have copied")
        assert all(map(parts_by, workers))
    assert world.read() == LENGTH


KILL_AFTER_HALF = f"""
    import os, signal
    done = globals().setdefault("done_parts", [])
    done.append(part)
    if len(done) == {PARTS // 2}:
        {{kill}}
        os.kill(os.getpid(), signal.SIGKILL)
"""

THE_WORKER = "os.kill(os.getppid(), signal.SIGKILL)"


def kill_after_half(folder: Path, also: str = "pass") -> str:
    """Return Python that kills the first process that has copied half of the parts."""
    once = f"os.close(os.open({str(folder / 'killed')!r}, os.O_CREAT | os.O_EXCL))"
    return small_parts(pause_s=0.02, after=KILL_AFTER_HALF.format(kill=f"{once}; {also}").strip()).replace(
        "if len(done)", f"if not os.path.exists({str(folder / 'killed')!r}) and len(done)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "file"])
def test_after_a_killed_process_another_one_copies_only_what_is_missing(world: World, kind: str) -> None:
    to = world.destination(kind)
    # One process: of two, the one that has joined may be killed, and the one with the batch goes on.
    with world.workers_named("one", before=kill_after_half(world.folder), processes=1) as (one,):
        status = world.wait(world.submit(to))
        world.assert_copied(to, status)
        (line,) = records(one, "all parts copied")
    assert (world.folder / "killed").exists()
    assert line["kept"] >= PARTS // 2
    assert line["kept"] + line["own"] + line["others"] == PARTS
    # Parts that were on their way are read, and may be written, twice.
    assert LENGTH <= world.read() <= LENGTH + 4 * PART
    if kind == "s3":
        assert PARTS <= world.received["UploadPart"] < PARTS + 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "file"])
def test_after_a_killed_worker_another_one_copies_only_what_is_missing(world: World, kind: str) -> None:
    to = world.destination(kind)
    with world.workers_named("one", before=kill_after_half(world.folder, THE_WORKER)) as (one,):
        job = world.submit(to)
        one.process.wait(PATIENCE_S)
        assert world.left_over(to) != []
    with world.workers_named("two") as (two,):
        status = world.wait(job)
        world.assert_copied(to, status)
        (line,) = records(two, "all parts copied")
    assert line["kept"] >= PARTS // 2
    assert line["kept"] + line["own"] + line["others"] == PARTS


IF_JOINED = """
from snapferry.workers.copying.parts import joining
copy_parts = joining._copy_parts
def joined(*a):
    global has_joined
    has_joined = True
    return copy_parts(*a)
joining._copy_parts = joined
"""


@pytest.mark.slow
def test_a_killed_worker_that_had_joined_costs_nothing(world: World) -> None:
    to = world.destination("s3")
    kill = "import os, signal; globals().get('has_joined') and os.kill(os.getppid(), signal.SIGKILL)"
    kill += "; globals().get('has_joined') and os.kill(os.getpid(), signal.SIGKILL)"
    before = small_parts(pause_s=0.2, before=kill) + IF_JOINED
    # One process each: a second one of the worker with the batch would join it, and kill both.
    with world.workers_named("one", "two", before=before, processes=1) as workers:
        job = world.submit(to)
        until(lambda: any(one.process.poll() is not None for one in workers), "a worker is killed")
        world.assert_copied(to, world.wait(job))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "file"])
def test_a_paused_job_goes_on_with_its_parts_and_a_cancelled_one_leaves_none(world: World, kind: str) -> None:
    to = world.destination(kind)
    with world.workers_named("one", "two") as workers:
        job = world.submit(to)
        until(lambda: len(world.ledger.begun_parts(job)) == 1, "the copy in parts has begun")
        until(lambda: world.read() > 4 * PART, "some parts were read")
        world.jobs.pause(job)
        until(lambda: any(one.said()[-1:] == ["batch skipped: the job is paused"] for one in workers), "held")
        assert world.left_over(to) != []
        world.jobs.unpause(job)
        world.assert_copied(to, world.wait(job))
        kept = [line["kept"] for worker in workers for line in records(worker, "all parts copied")]
        assert kept
        assert kept[0] > 0

        other = world.folder / "c"
        other.mkdir()
        to = str(other) if kind == "file" else world.proxy.url(world.bucket, "b/c")
        job = world.submit(to)
        until(lambda: len(world.ledger.begun_parts(job)) == 1, "the copy in parts has begun")
        world.jobs.pause(job)
        until(
            lambda: sum(one.said().count("batch skipped: the job is paused") for one in workers) == 2, "held"
        )
        world.jobs.cancel(job)
        assert world.wait(job).state is State.CANCELLED
        until(lambda: world.ledger.begun_parts(job) == [], "a worker has removed what was left")
        assert world.left_over(to) == []
        assert world.server.unfinished_uploads(world.bucket) == []
