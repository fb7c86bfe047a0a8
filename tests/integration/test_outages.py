"""Outages: a Redis that dies, forgets or hides, a missing mount, a commit that is interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.queues import waiting
from tests.sample import make_store, random_files, tree

from .forge import Forge
from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, finished, program, snapferry, started, until
from .slow_bucket import slow_bucket

# How long a Redis is away: longer than a client's first retries.
OUTAGE_S = 3.0


def without_temporary(root: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(root).items() if ".tmp-" not in path}


def command_for(tmp_path: Path, snapshot: str, *options: str, before: str = "") -> list[str]:
    """Return the sync of *snapshot* from a to b."""
    stores = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot]
    return [*program(before), "sync", *stores, *options]


# An orchestrator that hands out 200 batches, and the next one when Redis is away.
HALF_HANDED_OUT = """
import itertools, time
from pathlib import Path
import celery.canvas as c
apply_async, published, folder = c.Signature.apply_async, itertools.count(), Path({folder!r})
def patched(self, *args, **kwargs):
    if self.task == "snapferry.copy_batch" and next(published) == 200:
        (folder / "half").touch()
        while not (folder / "go on").exists():
            time.sleep(0.01)
    return apply_async(self, *args, **kwargs)
c.Signature.apply_async = patched
"""


@pytest.mark.slow
def test_a_redis_that_is_killed_while_batches_are_handed_out_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1000, size=16))
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        # What was delivered and not acknowledged when Redis died comes again after the visibility timeout.
        env = {"SNAPFERRY_BATCH_OBJECTS": "1", "SNAPFERRY_VISIBILITY_TIMEOUT": "10"}
        fleet = Fleet(server.url, tmp_path, env)
        jobs = Jobs(Settings(broker_url=server.url, batch_objects=1, visibility_timeout=10))
        half = HALF_HANDED_OUT.format(folder=str(tmp_path))
        with fleet.orchestrator(before=half) as orchestrator, fleet.worker() as worker:
            job_id = jobs.submit(
                JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot])
            )
            until((tmp_path / "half").exists, "half of a window is handed out")
            until(lambda: jobs.status(job_id).batches_done > 50, "batches are copied")
            server.kill()
            (tmp_path / "go on").touch()
            assert "plan_job: " not in orchestrator.logged(), "the plan is not handed out yet"
            time.sleep(OUTAGE_S)
            server.start()
            status = jobs.wait(job_id, timeout_s=200)
            for role in (orchestrator, worker):
                # Celery's consumer may break down at such a moment; the command then starts again.
                assert role.process.poll() is None, role.logged()[-2000:]

    assert status.state is State.DONE, status
    assert (status.copied, status.present, status.failed) == (1001, 0, 0)
    assert (status.objects_settled, status.bytes_settled) == (1001, 1000 * 16)
    assert without_temporary(tmp_path / "b") == tree(tmp_path / "a")


@pytest.mark.slow
def test_a_batch_that_outlives_the_visibility_timeout_is_copied_by_one_worker_at_a_time(
    redis_url: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    large = os.urandom(30 * 1024 * 1024)  # up to 24 s
    snapshot = make_store(tmp_path / "a", {"./large": large})
    env = {"SNAPFERRY_VISIBILITY_TIMEOUT": "5", **s3_environment}
    fleet = Fleet(redis_url, tmp_path, env)
    jobs = Jobs(Settings(broker_url=redis_url, visibility_timeout=5))
    # So short a lease would end before the second delivery comes, were it not renewed.
    short_lease = "import snapferry.workers.ledger.steps.leases as b; b.LEASE_S = 6"
    with (
        slow_bucket(tmp_path / "a", object_key(digest(large))) as bucket,
        fleet.orchestrator(),
        fleet.worker("one", before=short_lease) as one,
        fleet.worker("two", before=short_lease) as two,
    ):
        url = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
        until(
            lambda: any("another worker runs it" in w.logged() for w in (one, two)),
            "a second delivery steps aside",
        )
        assert bucket.running == 1, "the first one still copies"
        bucket.hurry.set()
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert (status.copied, status.present, status.failed) == (1, 0, 0)
    assert (bucket.gets, bucket.most_running) == (1, 1)
    assert without_temporary(tmp_path / "b") == tree(tmp_path / "a")


def test_a_worker_that_copies_while_redis_is_restarted_ends_its_batch_and_takes_the_next(
    s3_environment: dict[str, str], tmp_path: Path
) -> None:
    large = os.urandom(30 * 1024 * 1024)
    snapshot = make_store(tmp_path / "a", {"./large": large})
    with (
        own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server,
        slow_bucket(tmp_path / "a", object_key(digest(large))) as bucket,
    ):
        fleet = Fleet(server.url, tmp_path, s3_environment)
        jobs = Jobs(Settings(broker_url=server.url))
        with fleet.orchestrator() as orchestrator, fleet.worker() as worker:
            url = f"s3://bucket?endpoint_url={bucket.endpoint}"
            job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
            until(lambda: bucket.running, "the object is on its way")
            server.kill()
            server.start()
            until(lambda: "Connection to broker lost" in worker.logged(), "the worker notices")
            bucket.hurry.set()
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            # What that batch was received by is gone when it ends: both must take work all the same.
            second = jobs.wait(
                jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "c")), [snapshot])),
                timeout_s=PATIENCE_S,
            )
            for role in (worker, orchestrator):
                assert role.process.poll() is None, role.logged()[-2000:]

    assert (status.state, second.state) == (State.DONE, State.DONE)
    assert (status.copied, status.present, status.failed) == (1, 0, 0)
    assert tree(tmp_path / "b") == tree(tmp_path / "c") == tree(tmp_path / "a")


@pytest.mark.slow
def test_a_worker_without_the_mount_fails_its_objects_and_makes_nothing_in_its_place(
    redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
    command = command_for(tmp_path, snapshot, "--broker", redis_url)
    with redis.Redis.from_url(redis_url) as client, fleet.orchestrator():
        with started(*command, env=fleet.env, log=tmp_path / "sync.log") as running:
            until(lambda: len(waiting(client, COPY_QUEUE)) == 3, "the plan is handed out")
            (tmp_path / "b").rename(tmp_path / "elsewhere")
            with fleet.worker():
                assert running.process.wait(PATIENCE_S) == 1
                said = running.logged()
        assert (
            f"101 x StoreNotFound at file://{tmp_path}/b: there is no such directory; is it mounted here?"
            in (said)
        )
        assert (
            "101 of 101 objects could not be copied (no live worker can reach both stores: StoreNotFound"
            in said
        )
        assert "; the manifest was not written" in said
        assert not (tmp_path / "b").exists()
        assert tree(tmp_path / "elsewhere") == {}

        (tmp_path / "elsewhere").rename(tmp_path / "b")
        with fleet.worker():
            again = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)
    assert again.code == 0, again.err
    assert tree(tmp_path / "b") == tree(tmp_path / "a")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (b"#!/bin/sh\nexec sleep 300\n", "the embedded server did not start in 5 s"),
        (b"#!/bin/sh\nexit 1\n", "the embedded server ended unexpectedly"),
        (b"\0\1\2 this is no program \xff", "redis-server: Exec format error"),
    ],
    ids=["sleeps", "ends", "no program"],
)
def test_a_redis_server_that_serves_nothing_ends_the_command_and_leaves_nothing(
    tmp_path: Path, server: bytes, said: str
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    for folder in ("bin", "tmp"):
        (tmp_path / folder).mkdir()
    fake = tmp_path / "bin" / "redis-server"
    fake.write_bytes(server)
    fake.chmod(0o755)
    command = command_for(
        tmp_path, snapshot, before="import snapferry.orchestrator.embedded.fleet as e; e.START_TIMEOUT_S = 5"
    )
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "tmp")}

    with started(*command, env=env, log=tmp_path / "sync.log") as running:
        assert running.process.wait(PATIENCE_S) == 1

        assert running.logged().startswith("snapferry: ")
        assert running.logged().splitlines()[0].endswith(said), "one reason, in the first line"
        assert "Traceback" not in running.logged()
        until(lambda: not running.family(), "every process is gone")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_plan_that_kills_its_orchestrator_each_time_ends_the_job_with_that_reason(
    redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    fleet = Fleet(redis_url, tmp_path)
    deadly = (
        "import os, snapferry.orchestrator.driving.drive\n"
        "from snapferry.stores.manifest.parse import Manifest\n"
        "snapferry.orchestrator.driving.drive.MAX_DRIVES = 2\n"
        "Manifest.objects = lambda self: os.kill(os.getpid(), 9)\n"
    )
    with fleet.orchestrator(before=deadly) as orchestrator:
        ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)

        assert ended.code == 1
        assert "failed: its orchestrator died 2 times while it drove the job" in ended.err
        assert orchestrator.logged().count("WorkerLostError") >= 2
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(PLAN_QUEUE) == 0
    assert not (tmp_path / "b").exists()


SLOW_PUBLISH = """
import time
from pathlib import Path
import snapferry.orchestrator.cli.follow
from snapferry.stores.snapshot_store import SnapshotStore
publish, folder = SnapshotStore.publish_all, Path({folder!r})
def wait():
    (folder / "committing").touch()
    while not (folder / "go on").exists():
        time.sleep(0.01)
def before(self, *what):
    wait()
    return publish(self, *what)
def after(self, *what):
    published = publish(self, *what)
    wait()
    return published
SnapshotStore.publish_all = {when}
snapferry.orchestrator.cli.follow.CANCEL_TIMEOUT_S = {patience}
"""


@pytest.mark.parametrize("goes_on", [True, False], ids=["that ends", "that hangs"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_an_interrupt_of_the_commit_says_is_what_the_destination_has(
    tmp_path: Path, when: str, goes_on: bool
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    slow = SLOW_PUBLISH.format(folder=str(tmp_path), when=when, patience=20 if goes_on else 1)
    command = command_for(tmp_path, snapshot, before=slow)
    with started(*command, log=tmp_path / "sync.log") as running:
        until((tmp_path / "committing").exists, "the job commits")
        running.process.send_signal(signal.SIGINT)
        if goes_on:
            (tmp_path / "go on").touch()
        code = running.process.wait(PATIENCE_S)
        said = running.logged()
    published = snapferry("ls", str(tmp_path / "b")).out.split() == [snapshot]

    assert published == (goes_on or when == "after")
    assert "Traceback" not in said
    assert not (published and "No manifest was written" in said)
    if goes_on:
        assert (code, said.count("\n")) == (0, 1)
        assert f"snapshot {snapshot} is published" in said
    else:
        assert (code, said.count("\n")) == (130, 1)
        # Nobody knows yet whether the snapshot is published, so nothing is said of it.
        assert "published" not in said
        assert "Run the same command again" in said


def test_a_broker_that_forgets_everything_is_one_line_and_exit_code_1(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
    command = command_for(tmp_path, snapshot, "--broker", redis_url)
    with redis.Redis.from_url(redis_url) as client, fleet.orchestrator():
        with started(*command, env=fleet.env, log=tmp_path / "sync.log") as running:
            until(lambda: len(waiting(client, COPY_QUEUE)) == 3, "the plan is handed out")
            client.flushall()

            assert running.process.wait(PATIENCE_S) == 1
            said = running.logged()
        with fleet.worker():
            again = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)

    lines = [line for line in said.splitlines() if not line.startswith(("copying", "planning", "queued"))]
    assert len(lines) == 1, said
    assert "is gone: the broker lost its data. Run the same command again to resume." in lines[0]
    assert again.code == 0, again.err


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody vouches for, and its key."""
    openssl = shutil.which("openssl") or servers.missing("openssl is not installed")
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_a_broker_with_an_unknown_certificate_is_refused_until_its_authority_is_named(
    forge: Forge, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    servers.need_redis_with_tls()
    snapshot = make_store(tmp_path / "a", random_files(100))
    stores = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot]
    tls = ["--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "no"]
    tls += ["--tls-cert-file", str(certificate[0]), "--tls-key-file", str(certificate[1])]
    tls += ["--tls-ca-cert-file", str(certificate[0])]
    url = f"rediss://127.0.0.1:{{port}}/0?ssl_ca_certs={quote(str(certificate[0]))}"
    with own_redis(tmp_path / "redis", *tls, url=url) as server:
        bare = server.url.partition("?")[0]
        refused = Fleet(bare, tmp_path).sync(*stores)
        roles = [forge.run([role, "--broker", bare]) for role in ("worker", "orchestrator")]
        fleet = Fleet(server.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
        with fleet.orchestrator(), fleet.worker():
            ended = fleet.sync(*stores)

    assert (refused.code, refused.err.count("\n")) == (2, 1)
    for each in (refused, *roles):
        assert each.code != 0
        assert f"the broker at {bare} cannot be used" in each.err
        assert "certificate verify failed" in each.err
        assert "Traceback" not in each.err
    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_user_without_permission_is_told_so_and_changes_nothing(tmp_path: Path) -> None:
    # Root without its capabilities is an owner like any other: permissions bind it.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    snapshot = make_store(tmp_path / "a", random_files(20))
    (tmp_path / "b").mkdir(mode=0o555)

    unwritable = finished([*plain, *command_for(tmp_path, snapshot)])
    assert (unwritable.code, unwritable.err.count("\n")) == (1, 1), unwritable.err
    assert f"AccessDenied: file://{tmp_path}/b: no permission to write to {tmp_path}/b" in unwritable.err
    assert tree(tmp_path / "b") == {}

    (tmp_path / "b").chmod(0o755)
    closed = tmp_path / "a" / object_key(digest(b""))
    closed.chmod(0o000)
    unreadable = finished([*plain, *command_for(tmp_path, snapshot)])
    assert (unreadable.code, unreadable.err.count("\n")) == (1, 4), unreadable.err
    assert f"1 x AccessDenied at file://{tmp_path}/a: Permission denied" in unreadable.err
    assert not (tmp_path / "b" / ".manifests").exists()

    closed.chmod(0o644)
    allowed = finished([*plain, *command_for(tmp_path, snapshot)])
    assert allowed.code == 0, allowed.err
    assert tree(tmp_path / "b") == tree(tmp_path / "a")
