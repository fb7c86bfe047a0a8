"""
Many snapshots in one job, on a real fleet.

What they share is copied once and asked for in proportion, however they are
killed on the way; they become restorable one by one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import SnapshotId
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.counting import Traffic, counting_proxy
from tests.opening import open_store
from tests.sample import assert_published_means_complete, fill, random_files, tree
from tests.servers import S3Server

from .processes import PATIENCE_S, Fleet, Started, children_of, until
from .raw_store import write_snapshots

SNAPSHOTS = 40
SHARED = 1980
OWN = 20
OBJECTS = SHARED + SNAPSHOTS * OWN

# What the destination is asked, and sent, for one snapshot beside its objects: is its manifest there, write it,
# read it back.
REQUESTS_OF_A_MANIFEST = 3

SLOW = """
import time
from snapferry.stores.snapshot_store import SnapshotStore as S
stage = S.stage_object
def patched(*args, **kwargs):
    time.sleep(%f)
    return stage(*args, **kwargs)
S.stage_object = patched
"""


def shared_snapshots(root: Path) -> list[SnapshotId]:
    """Write snapshots that share 99 % of their objects into a new store; return their ids."""
    base = random_files(SHARED - 1, size=64)
    return write_snapshots(
        root,
        (
            base | {f"./own/{n}": random.Random(f"{number}/{n}").randbytes(64) for n in range(OWN)}
            for number in range(SNAPSHOTS)
        ),
    )


def whole(root: Path) -> dict[str, bytes]:
    """Return what is visible in the store at *root*: not the temporary files of writers that were killed."""
    return {path: data for path, data in tree(root).items() if ".tmp-" not in path}


def objects_in(root: Path) -> int:
    return sum(path.startswith(".objects/") for path in whole(root))


class Watch:
    """Looks at one job, and insists that its progress never goes back and never passes the total."""

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._last = (0, 0, 0)

    def see(self, status: JobStatus) -> None:
        now = (status.objects_settled, status.bytes_settled, status.snapshots_settled)
        assert all(one >= before for one, before in zip(now, self._last, strict=True)), (now, self._last)
        if status.objects_total:
            totals = (status.objects_total, status.bytes_total, status.snapshots_total)
            assert all(one <= total for one, total in zip(now, totals, strict=True)), (now, totals)
        self._last = now

    def until(self, condition: Callable[[JobStatus], bool], what: str) -> None:
        def reached() -> bool:
            status = self._jobs.status(self._job_id)
            self.see(status)
            assert not status.state.final, f"ended before it was killed: {what}: {status}"
            return condition(status)

        until(reached, what)

    def end(self) -> JobStatus:
        return self._jobs.wait(self._job_id, self.see, timeout_s=PATIENCE_S)


def kill_children(worker: Started) -> int:
    """SIGKILL the processes that copy; return how many there were."""
    killed = 0
    for child in children_of(worker.process.pid):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            killed += 1
    return killed


@pytest.mark.slow
def test_killed_three_times_and_resumed_it_ends_as_if_nothing_had_happened(
    redis_url: str, tmp_path: Path
) -> None:
    ids = shared_snapshots(tmp_path / "a")
    settings = {"batch_objects": 25, "window_batches": 12}
    env = {f"SNAPFERRY_{name.upper()}": str(value) for name, value in settings.items()}
    fleet = Fleet(redis_url, tmp_path, env)
    jobs = Jobs(Settings(broker_url=redis_url, **settings))
    pair = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))
    with fleet.worker(before=SLOW % 0.005) as worker:
        with fleet.orchestrator() as orchestrator:
            first = jobs.submit(JobSpec.of(*pair, ids))
            watch = Watch(jobs, first)
            watch.until(lambda status: status.batches_done >= 8 and bool(status.workers), "it copies")
            assert kill_children(worker) == 2
            done = jobs.status(first).batches_done
            watch.until(lambda status: status.batches_done >= done + 8, "it copies on")
            orchestrator.kill_all()
            orchestrator.process.wait(PATIENCE_S)
        done = jobs.status(first).batches_done
        with fleet.orchestrator():
            watch.until(lambda status: status.batches_done >= done + 16, "another one carries it on")
            jobs.cancel(first)
            cancelled = watch.end()
            assert cancelled.state is State.CANCELLED, cancelled
            assert_published_means_complete(open_store(str(tmp_path / "b")))
            there = objects_in(tmp_path / "b")
            assert 0 < there < OBJECTS
            second = jobs.resume(first)
            assert second is not None
            resumed = Watch(jobs, second).end()
            undisturbed = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), ids))
            assert Watch(jobs, undisturbed).end().copied == OBJECTS

    assert resumed.state is State.DONE, resumed
    assert (resumed.objects_total, resumed.objects_settled) == (OBJECTS, OBJECTS)
    assert resumed.bytes_settled == resumed.bytes_total
    assert (resumed.copied, resumed.present) == (OBJECTS - there, there)
    assert cancelled.copied + cancelled.present <= there
    assert whole(tmp_path / "b") == tree(tmp_path / "c") == tree(tmp_path / "a")
    assert jobs.resume(second) is None


@pytest.mark.slow
def test_shared_objects_cost_an_s3_server_one_put_and_few_questions(
    redis_url: str, rclone_memory_s3: S3Server, tmp_path: Path
) -> None:
    ids = shared_snapshots(tmp_path / "a")
    bucket = rclone_memory_s3.make_bucket()
    fleet = Fleet(redis_url, tmp_path, rclone_memory_s3.environment)
    jobs = Jobs(Settings(broker_url=redis_url))
    traffic = Traffic()
    with (
        counting_proxy(rclone_memory_s3, traffic) as (proxy, received),
        fleet.orchestrator(),
        fleet.worker(),
    ):
        first = Watch(
            jobs, jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), proxy.url(bucket)), ids))
        ).end()
        copying = received.copy()
        refused = traffic.refused.copy()
        received.clear()
        again = Watch(
            jobs, jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), proxy.url(bucket)), ids))
        ).end()
        checking = received.copy()

    assert (first.state, first.copied) == (State.DONE, OBJECTS), first
    assert (again.state, again.present) == (State.DONE, OBJECTS), again
    destination = open_store(rclone_memory_s3.url(bucket))
    assert destination.list_manifest_ids() == sorted(ids)
    assert_published_means_complete_once(destination, ids)
    # Every object is there, and there were no more PUTs than objects: each was sent once.
    # (This server, when it is busy, answers 500 to a PUT now and then, and then that one is sent again.)
    assert copying["PutObject"] - refused["PutObject"] == OBJECTS + SNAPSHOTS, (copying, refused)
    questions = copying["HeadObject"] + copying["ListObjectsV2"]
    counted = (
        f"{copying.total()} requests for {OBJECTS} objects, {questions} of them questions: {dict(copying)}"
    )
    assert copying.total() <= 2.6 * OBJECTS + REQUESTS_OF_A_MANIFEST * SNAPSHOTS, counted
    assert questions <= OBJECTS / 10, counted
    # Snapshot by snapshot it would be one question for each object of each: 80,000.
    assert checking["PutObject"] == 0, checking
    assert checking.total() <= OBJECTS / 10 + SNAPSHOTS, f"to find all of it there: {dict(checking)}"


def assert_published_means_complete_once(store: SnapshotStore, ids: list[SnapshotId]) -> None:
    """As `assert_published_means_complete`, reading an object that many snapshots share once."""
    needed = {}
    for snapshot_id in ids:
        with store.read_manifest(snapshot_id) as manifest:
            needed.update(manifest.objects())
    assert len(needed) == OBJECTS
    assert store.objects_needed(needed) == []
    for address in random.Random(1).sample(sorted(needed), 200):
        assert digest(store.get_object(address)) == address


def test_snapshots_become_restorable_one_by_one(redis_url: str, tmp_path: Path) -> None:
    source = open_store(str(tmp_path / "a"))
    ids = [fill(source, random_files(60, seed=number)) for number in range(1, 9)]
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "20"})
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=20))
    destination = open_store(str(tmp_path / "b"))
    seen: list[list[SnapshotId]] = []
    with fleet.orchestrator(), fleet.worker("one", "-c", "1", before=SLOW % 0.01):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        until((tmp_path / "b").exists, "the destination is made")
        watch = Watch(jobs, job_id)
        while not (status := jobs.status(job_id)).state.final:
            watch.see(status)
            published = destination.list_manifest_ids()
            if not seen or len(published) != len(seen[-1]):
                assert_published_means_complete(destination)
                seen.append(published)
            time.sleep(0.02)
        watch.see(status)

    assert status.state is State.DONE, status
    for published in seen:
        # In the order that was asked for; of a group that is being published, a part can be seen.
        assert sorted(ids[: len(published)]) == published
    counts = [len(published) for published in seen]
    assert counts == sorted(set(counts))
    assert len(counts) >= len(ids) / 2, f"they came all at once: {counts}"
    assert [row.state for row in jobs.snapshots(job_id)] == ["published"] * len(ids)
