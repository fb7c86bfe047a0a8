"""Stores that go away and come back, and workers that cannot reach a store: jobs wait, and no object fails by it."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, one_store, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.ledger.keys import PARKED
from snapferry.workers.messages import Action, JobSpec, Limits, TreeOptions, encode_addresses
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, Fleet, program, snapferry, started, until
from .raw_store import write_raw, write_snapshots
from .stopping_server import StoppingServer, stopping_server

OBJECTS = 400


@pytest.fixture
def server(tmp_path: Path, s3_environment: dict[str, str]) -> Iterator[StoppingServer]:
    with stopping_server(tmp_path / "s3") as found:
        yield found


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path, s3_environment: dict[str, str]) -> Fleet:
    return Fleet(redis_url, tmp_path, {**s3_environment, "SNAPFERRY_BATCH_OBJECTS": "20"})


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=20))


@pytest.fixture
def snapshot(tmp_path: Path) -> str:
    return make_store(tmp_path / "a", random_files(OBJECTS, size=5000))


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def some_copied(jobs: Jobs, job_id: str) -> None:
    status = until(
        lambda: (one := jobs.status(job_id)).objects_settled >= 20 or (one.state.final and one),
        "something is copied",
    )
    assert status is True, status


def waits(jobs: Jobs, job_id: str) -> None:
    until(lambda: jobs.status(job_id).waiting is not None, "the job waits for a store")


def files(server: StoppingServer) -> set[str]:
    """Return what is in the bucket, without what rclone itself leaves behind when it is killed."""
    return {path for path in tree(server.bucket) if ".rclone_temp_put" not in path}


def nothing_is_parked(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as client:
        return not client.hlen(PARKED) and not client.keys("snapferry.copy.@*")


def test_an_outage_costs_no_object_and_what_is_waited_for_is_said(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, snapshot: str, tmp_path: Path, redis_url: str
) -> None:
    with fleet.orchestrator(), fleet.worker("one") as one, fleet.worker("two") as two:
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot]))
        some_copied(jobs, job_id)
        server.kill()
        waits(jobs, job_id)
        shown = snapferry("status", job_id, env={**fleet.env, "SNAPFERRY_BROKER_URL": redis_url})
        document = snapferry("status", job_id, "--json", env={**fleet.env, "SNAPFERRY_BROKER_URL": redis_url})
        pending = jobs.status(job_id)
        server.start()
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

        assert status.state is State.DONE, status
        assert counts(status) == (OBJECTS + 1, 0, 0)
        assert status.waiting is None
        assert not pending.failed
        assert f"waiting for s3://bucket at http://127.0.0.1:{server.port} (" in shown.out
        assert document.document["waiting"]["store"] == f"s3://bucket at http://127.0.0.1:{server.port}"
        # No worker goes round in circles: a batch is parked once by each, or once more by one that was at it.
        assert sum("batch parked" in said for worker in (one, two) for said in worker.said()) < 100
        until(lambda: nothing_is_parked(redis_url), "the parking queue is gone")
    assert files(server) == set(tree(tmp_path / "a"))


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        pytest.param({"HTTP_PROXY": "http://127.0.0.1:9"}, "away", id="cut off", marks=pytest.mark.slow),
        pytest.param({"AWS_SECRET_ACCESS_KEY": "anothersecretkey"}, "refused", id="refused"),
    ],
)
def test_a_worker_that_cannot_reach_a_store_leaves_its_batches_to_another(
    jobs: Jobs,
    fleet: Fleet,
    server: StoppingServer,
    snapshot: str,
    tmp_path: Path,
    trouble: dict[str, str],
    kind: str,
) -> None:
    bad = Fleet(fleet.url, fleet.folder, {**fleet.env, **trouble})
    with fleet.orchestrator(), bad.worker("bad") as lame, fleet.worker("good", "-c", "1"):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot]))
        until(lambda: "store not reached" in lame.logged(), "the worker finds that it cannot reach the store")
        found = until(lambda: jobs.unreached(job_id), "the fleet knows which worker cannot reach which store")
        # Jobs between stores that it reaches go on.
        other = jobs.wait(
            jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), [snapshot])),
            timeout_s=60,
        )
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

        assert (status.state, other.state) == (State.DONE, State.DONE)
        assert counts(status) == (OBJECTS + 1, 0, 0)
        assert {(one.worker.partition("@")[0], one.kind) for one in found} == {("bad", kind)}
        parked = sum("batch parked" in said for said in lame.said())
        assert 0 < parked < 60, "each batch at most once or so, and not again and again"


@pytest.mark.slow
def test_a_fleet_of_refused_workers_fails_the_job_and_says_why(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, snapshot: str, tmp_path: Path
) -> None:
    bad = Fleet(fleet.url, fleet.folder, {**fleet.env, "AWS_SECRET_ACCESS_KEY": "anothersecretkey"})
    with fleet.orchestrator(), bad.worker("one", "-c", "1") as one, bad.worker("two", "-c", "1"):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot]))
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        assert "job given up: no live worker can reach both stores: AccessDenied" in one.logged() + "".join(
            path.read_text() for path in tmp_path.glob("two-*.log")
        )

    assert status.state is State.FAILED
    assert counts(status) == (0, 0, OBJECTS + 1)
    assert jobs.failed_by_class(job_id) == {"AccessDenied": OBJECTS + 1}


@pytest.mark.slow
def test_patience_ends_and_a_retry_goes_on_and_steering_works_meanwhile(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, snapshot: str, tmp_path: Path
) -> None:
    stores = store_pair(str(tmp_path / "a"), server.url)
    with fleet.orchestrator(), fleet.worker():
        job_id = jobs.submit(JobSpec.of(*stores, [snapshot], patience=1))
        steered = jobs.submit(JobSpec.of(*stores, [snapshot], patience=3600))
        some_copied(jobs, job_id)
        server.kill()
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

        assert status.state is State.FAILED
        assert status.copied + status.present + status.failed == OBJECTS + 1
        assert status.failed
        assert jobs.failed_by_class(job_id) == {"StoreUnavailable": status.failed}
        letter = next(iter(jobs.failures(job_id, places=False)))
        assert letter.known is not None
        assert "waited for" in letter.known.failure.detail

        waits(jobs, steered)
        assert jobs.pause(steered).paused
        waits(jobs, steered)
        jobs.unpause(steered)
        jobs.cancel(steered)
        assert jobs.wait(steered, timeout_s=PATIENCE_S).state is State.CANCELLED

        server.start()
        # A server that has just started on a busy machine may need longer than the first job's patience.
        again = jobs.wait(jobs.retry(job_id, patience=PATIENCE_S), timeout_s=PATIENCE_S)
        if again.state is State.FAILED and "absent again" in again.error:
            # The killed server had lost objects that it had confirmed, and a retry copies only those that failed.
            rest = jobs.resume(again.job_id)
            assert rest is not None
            again = jobs.wait(rest, timeout_s=PATIENCE_S)
        assert again.state is State.DONE, again
        assert again.failed == 0
    assert files(server) == set(tree(tmp_path / "a"))


def test_a_store_that_never_answered_is_waited_for_only_by_those_who_said_so(
    fleet: Fleet, tmp_path: Path, snapshot: str, s3_environment: dict[str, str]
) -> None:
    with stopping_server(tmp_path / "s3", started=False) as server:
        stores = ["--from", str(tmp_path / "a"), "--to", server.url, "--id", snapshot]
        refused = snapferry("sync", *stores, env=fleet.env)
        assert refused.code == 1
        assert "Could not connect" in refused.err

        command = ["sync", *stores, "--patience", "1h", "--json"]
        with started(*program(), *command, env=fleet.env, log=tmp_path / "sync.log") as patient:
            time.sleep(1)
            server.start()
            assert patient.process.wait(PATIENCE_S) == 0, patient.logged()
            document = json.loads(patient.logged())
    assert document["objects"]["failed"] == 0


@pytest.mark.parametrize("leaves", ["an empty directory", pytest.param("nothing", marks=pytest.mark.slow)])
def test_a_mount_that_goes_away_is_waited_for(
    jobs: Jobs, fleet: Fleet, snapshot: str, tmp_path: Path, leaves: str
) -> None:
    with fleet.orchestrator(), fleet.worker():
        job_id = jobs.submit(
            JobSpec.of(
                *store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot], limits=Limits(rate=400_000)
            )
        )
        some_copied(jobs, job_id)
        (tmp_path / "b").rename(tmp_path / "elsewhere")
        if leaves == "nothing":
            waits(jobs, job_id)
            assert not (tmp_path / "b").exists(), "nothing is made in its place"
        else:
            (tmp_path / "b").mkdir()
            waits(jobs, job_id)
            # Only what was on its way, in two processes.
            assert len(tree(tmp_path / "b")) <= 2 * 20
            assert not (tmp_path / "b" / ".manifests").exists()
            shutil.rmtree(tmp_path / "b")
        (tmp_path / "elsewhere").rename(tmp_path / "b")
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert status.failed == 0
    assert tree(tmp_path / "b") == tree(tmp_path / "a")


# A worker that copies the last objects, and an orchestrator that then finds the store away.
HELD_COMMIT = """
import time
from contextlib import ExitStack
from pathlib import Path
from snapferry.stores.snapshot_store import SnapshotStore
publish, folder = SnapshotStore.publish_all, Path({folder!r})
def held(self, *what):
    (folder / "committing").touch()
    while not (folder / "go on").exists():
        time.sleep(0.01)
    return publish(self, *what)
SnapshotStore.publish_all = held
"""


@pytest.mark.slow
@pytest.mark.parametrize("steer", [False, True], ids=["back", "cancelled"])
def test_a_commit_waits_for_its_store_and_can_be_cancelled_meanwhile(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, tmp_path: Path, steer: bool
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    held = HELD_COMMIT.format(folder=str(tmp_path))
    with fleet.orchestrator(before=held), fleet.worker():
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot]))
        until((tmp_path / "committing").exists, "all is copied, and the commit begins")
        server.kill()
        (tmp_path / "go on").touch()
        waits(jobs, job_id)
        if steer:
            jobs.cancel(job_id)
            assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.CANCELLED
            return
        server.start()
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert counts(status) == (21, 0, 0)
    assert files(server) == set(tree(tmp_path / "a"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "silent", "flaps"])
def test_long_outages_and_stores_that_come_and_go_cost_no_object(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, tmp_path: Path, how: str
) -> None:
    count = 3000
    snapshot = make_store(tmp_path / "a", random_files(count, size=5000))
    with ExitStack() as running:
        running.enter_context(fleet.orchestrator())
        for number in range(3):
            running.enter_context(fleet.worker(f"worker{number}"))
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot]))
        some_copied(jobs, job_id)
        if how == "killed":
            server.kill()
            waits(jobs, job_id)
            time.sleep(25)
            server.start()
        elif how == "silent":
            server.silence()
            waits(jobs, job_id)
            time.sleep(10)
            server.speak()
        else:
            for _ in range(8):
                server.kill()
                time.sleep(1.5)
                server.start()
                time.sleep(1.5)
        began = time.monotonic()
        settled = jobs.status(job_id).objects_settled
        until(
            lambda: jobs.status(job_id).objects_settled > settled or jobs.status(job_id).state.final,
            "it goes on",
        )
        print(f"{how}: went on {time.monotonic() - began:.1f} s after the server was back")
        status = jobs.wait(job_id, timeout_s=300)

    assert status.state is State.DONE, status
    assert (status.copied + status.present, status.failed) == (count + 1, 0)
    assert files(server) == set(tree(tmp_path / "a"))


def away_in_the_middle(jobs: Jobs, job_id: str, server: StoppingServer, redis_url: str) -> JobStatus:
    """Let the server go away when some objects are settled, and come back; return the status at the end."""
    some_copied(jobs, job_id)
    server.kill()
    waits(jobs, job_id)
    pending = jobs.status(job_id)
    assert not pending.state.final
    assert pending.waiting is not None
    assert str(server.port) in pending.waiting.store
    before = pending.objects_settled
    # Longer than the first attempts of every layer.
    time.sleep(15)
    still = jobs.status(job_id)
    assert (still.waiting is not None, still.failed) == (True, pending.failed)
    assert still.objects_settled >= before
    server.start()
    status = jobs.wait(job_id, timeout_s=PATIENCE_S)
    until(lambda: nothing_is_parked(redis_url), "the parking queue is gone")
    return status


@pytest.mark.slow
def test_a_verify_waits_for_its_server_and_finds_exactly_what_is_wrong(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, redis_url: str
) -> None:
    files = random_files(OBJECTS, size=5000)
    (snapshot,) = write_snapshots(server.bucket, [files])
    addresses = sorted({digest(data) for data in files.values() if data})
    corrupt, missing = addresses[3::60], addresses[10::90]
    for address in corrupt:
        write_raw(server.bucket, object_key(address), b"wrong bytes")
    for address in missing:
        (server.bucket / object_key(address)).unlink()
    store = one_store(server.url)
    request = JobSpec.of(store, store, [snapshot], action=Action.VERIFY, limits=Limits(rate=300_000))

    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        status = away_in_the_middle(jobs, jobs.submit(request), server, redis_url)
        impatient = jobs.submit(request.successor(patience=1))
        some_copied(jobs, impatient)
        server.kill()
        given_up = jobs.wait(impatient, timeout_s=PATIENCE_S)
        letters = {letter.address: letter for letter in jobs.failures(status.job_id, places=False)}

    assert status.state is State.FAILED
    wrong = dict.fromkeys(corrupt, "IntegrityError") | dict.fromkeys(missing, "ObjectMissing")
    found = {address: one.known.failure.error for address, one in letters.items() if one.known is not None}
    assert found == wrong
    assert (status.present, status.failed) == (status.objects_total - len(wrong), len(wrong))
    # Without patience the rest is a finding of its own, and never intact or missing.
    assert given_up.state is State.FAILED
    assert given_up.present + given_up.failed == given_up.objects_total
    classes = jobs.failed_by_class(impatient)
    assert classes["StoreUnavailable"] == given_up.failed - sum(
        classes.get(kind, 0) for kind in ("IntegrityError", "ObjectMissing")
    )
    assert classes.get("ObjectMissing", 0) <= len(missing)


@pytest.mark.slow
def test_a_pull_waits_for_its_server_and_the_tree_is_exact(
    jobs: Jobs, fleet: Fleet, server: StoppingServer, tmp_path: Path, redis_url: str
) -> None:
    files = random_files(OBJECTS, size=5000) | {"./large": random.Random(3).randbytes(9_000_000)}
    (snapshot,) = write_snapshots(server.bucket, [files])
    dest = tmp_path / "dest"
    source, destination = store_pair(server.url, f"tree://{dest}")
    request = JobSpec(
        action=Action.PULL,
        source=source,
        destination=destination,
        snapshots=encode_addresses([snapshot]),
        tree=TreeOptions(delete=True),
        limits=Limits(rate=1_000_000),
    )
    access = {"SNAPFERRY_ACCESS_READ": "s3://bucket", "SNAPFERRY_ACCESS_WRITE": f"tree://{dest}"}
    allowed = Fleet(fleet.url, fleet.folder, {**fleet.env, **access})

    with allowed.orchestrator(), allowed.worker("one"), allowed.worker("two"):
        status = away_in_the_middle(jobs, jobs.submit(request), server, redis_url)

    assert (status.state, status.error) == (State.DONE, "")
    assert (status.copied + status.present, status.failed) == (len(files), 0)
    there = {f"./{path.relative_to(dest)}": path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    assert there == files
