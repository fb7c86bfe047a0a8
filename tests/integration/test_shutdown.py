"""Workers and orchestrators that are told to stop in the middle of something: gone in time, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from snapferry.stores.hashing import digest
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE
from snapferry.workers.settings.environment import Settings
from tests.opening import open_store
from tests.queues import waiting
from tests.sample import assert_published_means_complete, make_store, random_files, tree
from tests.servers import S3Server

from .processes import PATIENCE_S, Fleet, Started, children_of, until
from .slow_bucket import slow_bucket

GRACE_S = 1.0

# With these, whoever waits for a lease to run out waits longer than any test.
LONG_LEASES = "from snapferry.workers.ledger.steps import leases\nleases.LEASE_S = 3600\n"

# A busy machine needs longer than a worker may take; what hangs has tests of its own.
UNHURRIED = """\
from snapferry.workers.lifecycle import shutdown
shutdown.KILL_AFTER_S = 200.0
shutdown.FORCE_S = 210.0
"""

# It comes in one answer, piece by piece, and goes in parts.
BIG = 3 * MIN_PART_BYTES + 1


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=50))


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path, s3_environment: dict[str, str]) -> Fleet:
    return Fleet(redis_url, tmp_path, {**s3_environment, "SNAPFERRY_BATCH_OBJECTS": "50"})


def store_with_a_big_object(folder: Path) -> tuple[str, str]:
    """Make a store of many small objects and a big one; return its snapshot and the big one's key."""
    files = random_files(120)
    data = random.Random(5).randbytes(BIG)
    snapshot = make_store(folder, files | {"./big": data})
    return snapshot, object_key(digest(data))


def leave(worker: Started, *, number: int = signal.SIGTERM) -> float:
    """Tell a role to stop; return the seconds until it is gone, all of its processes and with exit code 0."""
    began = time.monotonic()
    worker.process.send_signal(number)
    code = worker.process.wait(PATIENCE_S)
    took = time.monotonic() - began
    assert code == 0, worker.logged()[-3000:]
    assert until(lambda: not worker.family(), "no child is left")
    return took


def assert_whole(status: JobStatus, tmp_path: Path, destination: str) -> None:
    assert status.state is State.DONE, status
    assert (status.copied, status.present, status.failed) == (122, 0, 0), "each object is counted once"
    assert status.objects_settled == status.objects_total == 122
    assert status.bytes_copied == sum(
        len(data) for path, data in tree(tmp_path / "a").items() if ".objects" in path
    )
    assert_published_means_complete(open_store(destination))


def temporary(folder: Path) -> list[str]:
    return [path for path in tree(folder) if ".tmp-" in path]


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_a_worker_gives_its_batch_back_and_another_one_ends_it_at_once(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path, pool: str
) -> None:
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    destination = str(tmp_path / "b")
    with ExitStack() as stack:
        bucket = stack.enter_context(slow_bucket(tmp_path / "a", big))
        client: Any = stack.enter_context(redis.Redis.from_url(redis_url, decode_responses=True))
        stack.enter_context(fleet.orchestrator())
        one = stack.enter_context(
            fleet.worker("one", "--grace", str(GRACE_S), "--", "--pool", pool, before=LONG_LEASES + UNHURRIED)
        )
        job = jobs.submit(
            JobSpec.of(*store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", destination), [snapshot])
        )
        until(lambda: bucket.running, "the big object is on its way")
        until(lambda: jobs.status(job).batches_done == 2, "the other batches are done")

        took = leave(one)

        assert took >= GRACE_S * 2 / 3, "what runs may go on for a while"
        assert temporary(tmp_path / "b") == []
        assert len(waiting(client, COPY_QUEUE)) == 1, "its message is in the queue, once"
        assert not client.hlen(UNACKED), "and nowhere else"
        assert client.zcard(f"snapferry:job:{job}:leases") == 0
        assert client.hlen(f"snapferry:job:{job}:begun") == 0, "leaving is no sign of a deadly batch"
        assert one.said()[-1] == "shutdown complete"
        assert "batch requeued: this worker shuts down" in one.said()

        before = bucket.gets
        bucket.hurry.set()
        stack.enter_context(fleet.worker("two"))
        until(lambda: bucket.gets == before + 1, "another worker has begun it")
        status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert_whole(status, tmp_path, destination)


def test_a_batch_that_ends_within_the_grace_is_not_given_back(
    fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    with (
        slow_bucket(tmp_path / "a", big) as bucket,
        fleet.orchestrator(),
        fleet.worker("one", "--grace", "60") as one,
    ):
        job = jobs.submit(
            JobSpec.of(
                *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", str(tmp_path / "b")), [snapshot]
            )
        )
        until(lambda: bucket.running, "the big object is on its way")
        until(lambda: jobs.status(job).batches_done == 2, "the other batches are done")
        one.process.send_signal(signal.SIGTERM)
        until(lambda: "shutdown on SIGTERM" in one.logged(), "it was told")
        bucket.hurry.set()
        assert one.process.wait(PATIENCE_S) == 0
        status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert bucket.gets == 1
    assert_whole(status, tmp_path, str(tmp_path / "b"))


def test_a_second_signal_ends_the_grace(fleet: Fleet, jobs: Jobs, tmp_path: Path) -> None:
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    with (
        slow_bucket(tmp_path / "a", big) as bucket,
        fleet.orchestrator(),
        fleet.worker("one", "--grace", "60") as one,
    ):
        jobs.submit(
            JobSpec.of(
                *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", str(tmp_path / "b")), [snapshot]
            )
        )
        until(lambda: bucket.running, "the big object is on its way")
        one.process.send_signal(signal.SIGINT)
        until(lambda: "shutdown on SIGINT" in one.logged(), "it was told")
        leave(one, number=signal.SIGINT)

        assert temporary(tmp_path / "b") == []


@pytest.mark.slow
def test_an_upload_in_parts_is_aborted_by_the_worker_that_leaves(
    moto_s3: S3Server, fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    name = moto_s3.make_bucket()
    destination = moto_s3.url(name, "b")
    with slow_bucket(tmp_path / "a", big) as bucket, fleet.orchestrator():
        with fleet.worker("one", "--grace", str(GRACE_S)) as one:
            job = jobs.submit(
                JobSpec.of(
                    *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", destination), [snapshot]
                )
            )
            until(lambda: moto_s3.unfinished_uploads(name), "an upload in parts has begun")
            leave(one)
            assert moto_s3.unfinished_uploads(name) == [], "before anybody else could tidy up"
        bucket.hurry.set()
        with fleet.worker("two"):
            status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert moto_s3.unfinished_uploads(name) == []
    assert_whole(status, tmp_path, destination)


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_a_batch_that_hangs_is_killed_in_time_and_handed_out_within_seconds(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path, pool: str
) -> None:
    """The other worker is taken to be on another machine: it cannot see that the first one is dead."""
    elsewhere = "import snapferry.stores.runtime.liveness as l\nl._machine = lambda: 'elsewhere'\n"
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    with ExitStack() as stack:
        bucket = stack.enter_context(slow_bucket(tmp_path / "a", big, pause_s=300))
        stack.enter_context(fleet.orchestrator())
        one = stack.enter_context(
            fleet.worker("one", "--grace", str(GRACE_S), "--", "--pool", pool, before=LONG_LEASES + UNHURRIED)
        )
        job = jobs.submit(
            JobSpec.of(
                *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", str(tmp_path / "b")), [snapshot]
            )
        )
        until(lambda: bucket.running, "the big object is on its way, and hangs")
        stack.enter_context(fleet.worker("two", before=elsewhere))

        leave(one)
        until(lambda: bucket.gets == 2, "another worker has begun it")
        bucket.hurry.set()
        status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert_whole(status, tmp_path, str(tmp_path / "b"))


def test_an_orchestrator_breaks_off_its_step_and_another_one_does_it_at_once(
    fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    """It reads a manifest that comes in drops."""
    snapshot = make_store(tmp_path / "a", random_files(700))
    elsewhere = "import snapferry.stores.runtime.liveness as l\nl._machine = lambda: 'elsewhere'\n"
    with slow_bucket(tmp_path / "a", manifest_key(snapshot), pause_s=20) as bucket, fleet.worker():
        with fleet.orchestrator("--hostname", "one@%h", "--grace", str(GRACE_S), before=LONG_LEASES) as one:
            job = jobs.submit(
                JobSpec.of(
                    *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", str(tmp_path / "b")),
                    [snapshot],
                )
            )
            until(lambda: bucket.running, "the manifest is on its way")
            leave(one)
            assert "drive requeued: this orchestrator shuts down" in one.said()
        bucket.hurry.set()
        with fleet.orchestrator("--hostname", "two@%h", before=elsewhere):
            status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert (status.state, status.copied) == (State.DONE, 701)


@pytest.mark.slow
def test_a_signal_that_is_sent_to_all_processes_loses_nothing(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """As systemd does by default: SIGTERM to every process of the service at once."""
    snapshot, big = store_with_a_big_object(tmp_path / "a")
    with (
        slow_bucket(tmp_path / "a", big) as bucket,
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        fleet.orchestrator(),
    ):
        with fleet.worker("one", "--grace", "3", before=LONG_LEASES) as one:
            job = jobs.submit(
                JobSpec.of(
                    *store_pair(f"s3://bucket?endpoint_url={bucket.endpoint}", str(tmp_path / "b")),
                    [snapshot],
                )
            )
            until(lambda: bucket.running, "the big object is on its way")
            for child in children_of(one.process.pid):
                os.kill(child, signal.SIGTERM)
            took = leave(one)
            assert took > 2, "the grace was kept"
            assert "batch requeued: this worker shuts down" in one.said()
            assert temporary(tmp_path / "b") == []
            assert not client.hlen(UNACKED)
        before = bucket.gets
        bucket.hurry.set()
        with fleet.worker("two"):
            until(lambda: bucket.gets == before + 1, "another worker has begun it")
            status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert_whole(status, tmp_path, str(tmp_path / "b"))


SLOW_PARTS = """
import time
import snapferry.stores.backends.s3.objects.multipart as u
send = u.S3Upload._send_part
def slowly(*a):
    time.sleep(0.5)
    return send(*a)
u.S3Upload._send_part = slowly
"""


@pytest.mark.slow
def test_a_huge_object_of_which_several_parts_are_on_their_way_is_aborted(
    moto_s3: S3Server, fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    data = random.Random(7).randbytes(12 * MIN_PART_BYTES)
    snapshot = make_store(tmp_path / "a", {"./huge": data})
    name = moto_s3.make_bucket()
    destination = moto_s3.url(name, "b")
    with fleet.orchestrator():
        with fleet.worker("one", "--grace", "0", before=SLOW_PARTS) as one:
            job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), destination), [snapshot]))
            until(lambda: moto_s3.unfinished_uploads(name), "its upload has begun")
            leave(one)
            assert "batch requeued: this worker shuts down" in one.said()
            assert moto_s3.unfinished_uploads(name) == [], "before anybody else could tidy up"
        with fleet.worker("two"):
            status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert (status.state, status.copied, status.bytes_copied) == (State.DONE, 1, len(data))
    assert moto_s3.unfinished_uploads(name) == []
    assert_published_means_complete(open_store(destination))
