"""A fleet opens only what its own configuration allows, whatever a submitter or a stranger in Redis names."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.dashboard.lookup import _read
from snapferry.orchestrator.jobs import Jobs
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec, Prune, StoreRef
from snapferry.workers.settings.environment import Settings
from tests.opening import open_store as open_trusted
from tests.sample import fill, make_store, random_files
from tests.servers import S3_ENVIRONMENT, S3Server

from .forge import Forge
from .processes import PATIENCE_S, Fleet, finished, snapferry

# What a worker has: credentials, and no word of any endpoint.
CREDENTIALS = {name: value for name, value in S3_ENVIRONMENT.items() if name.startswith("AWS_")}


@contextlib.contextmanager
def capturing() -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that keeps what is sent to it, and answers nothing; yield its port and that."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(2)
                        received.append(b"connected")
                        with contextlib.suppress(OSError):
                            received.append(connection.recv(4096))

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)


def ended(jobs: Jobs, source: StoreRef, destination: StoreRef, **options: Any) -> JobStatus:
    """Submit as a stranger does who writes to Redis what the command line would not; return how it ended."""
    options.setdefault("snapshot_ids", ["0" * 64])
    job_id = jobs.submit(JobSpec.of(source, destination, **options))
    return jobs.wait(job_id, timeout_s=PATIENCE_S)


def test_a_submitter_gets_no_signed_request_to_any_host_of_theirs_and_no_deletion(
    forge: Forge, redis_url: str, tmp_path: Path
) -> None:
    make_store(tmp_path / "a", random_files(3))
    here, there = StoreRef(url=f"file://{tmp_path}/a"), StoreRef(url=f"file://{tmp_path}/b")
    old = make_store(tmp_path / "b", {"./old": b"old"})
    jobs = Jobs(Settings(broker_url=redis_url))
    fleet = Fleet(redis_url, tmp_path, CREDENTIALS)
    with capturing() as (port, received), fleet.orchestrator() as orchestrator, fleet.worker():
        evil = f"endpoint_url=http://127.0.0.1:{port}"
        stores = {
            f"s3://b?{evil}": "`endpoints`",
            f"s3://b?endpoint_url=http://localhost:{port}": "`endpoints`",
            f"s3://b?endpoint_url=https://127.0.0.1:{port}": "`endpoints`",
            f"s3://b/p?{evil}&profile=other": "`endpoints`",
            "s3://b?profile=other": "`profiles`",
            "s3://b?endpoint_url=http://169.254.169.254": "`link-local = true`",
            "s3://b?endpoint_url=http://[::ffff:169.254.169.254]": "`link-local = true`",
            "s3://b?endpoint_url=http://evil.example": "`endpoints`",
        }
        refused = []
        for url, rule in stores.items():
            pairs = [(StoreRef(url=url), there), (here, StoreRef(url=url))]
            if url == f"s3://b?{evil}":
                pairs += [
                    (here.model_copy(update={"objects_url": url}), there),
                    (here, there.model_copy(update={"objects_url": url})),
                ]
            refused += [(ended(jobs, *pair), rule) for pair in pairs]
        refused.append((ended(jobs, here, there, snapshot_ids=None, prune=Prune()), "`delete`"))
        # What cannot even be read as a URL.
        odd = [
            ended(jobs, StoreRef(url=url), there) for url in ("s3://b/../x", "s3://b/x\n", "/" + "x" * 5000)
        ]
        found = forge.run(["doctor", "--json", "--broker", redis_url])
        plain = ended(jobs, here, there, snapshot_ids=None)
        logged = orchestrator.logged()

    for status, rule in refused:
        assert status.state is State.FAILED
        assert status.error.startswith("NotAllowed: ")
        assert "the orchestrator on " in status.error
        assert rule in status.error
    assert [status.state for status in odd] == [State.FAILED] * 3
    assert all(status.error.startswith("InvalidStoreURL: ") for status in odd)
    assert received == []
    assert plain.state is State.DONE
    assert old in open_store(there.url).list_manifest_ids()
    assert "no allow-list of stores" in logged
    (warning,) = [one for one in found.document["checks"] if one["check"] == "fleet.access"]
    assert warning["level"] == "warning"
    assert "orchestrator@" in warning["said"]
    assert "worker@" in warning["said"]


def test_a_fleet_with_an_allow_list_opens_what_is_in_it_and_nothing_beside(
    forge: Forge, redis_url: str, tmp_path: Path
) -> None:
    for name in ("in/a", "in-secret", "out"):
        make_store(tmp_path / name, random_files(3))
    (tmp_path / "in/link").symlink_to(tmp_path / "in-secret")
    (tmp_path / "snapferry.toml").write_text(
        f'[access]\nread = ["file://{tmp_path}/in"]\nwrite = ["{tmp_path}/out"]\ndelete = ["{tmp_path}/out"]\n'
    )
    jobs = Jobs(Settings(broker_url=redis_url))
    fleet = Fleet(redis_url, tmp_path, CREDENTIALS | {"SNAPFERRY_CONFIG": str(tmp_path / "snapferry.toml")})

    def run(source: str, destination: str, **options: Any) -> JobStatus:
        refs = StoreRef(url=f"file://{source}"), StoreRef(url=f"file://{destination}")
        return ended(jobs, *refs, snapshot_ids=None, **options)

    inside, out = f"{tmp_path}/in/a", f"{tmp_path}/out"
    with fleet.orchestrator() as orchestrator, fleet.worker():
        fine = [run(inside, out), run(inside, f"{out}/deeper"), run(inside, out, prune=Prune())]
        refused = [
            run("/etc", out),
            run(f"{tmp_path}/in-secret", out),
            run(f"{tmp_path}/in/link", out),
            run(f"{tmp_path}/in/../in-secret", out),
            run("/proc/self/cwd", out),
            run(inside, f"{tmp_path}/in/b"),
            run(inside, f"{tmp_path}/elsewhere"),
        ]
        found = forge.run(["doctor", "--json", "--broker", redis_url])
        logged = orchestrator.logged()

    assert [status.state for status in fine] == [State.DONE] * 3, fine
    for status in refused:
        assert (status.state, status.error.partition(":")[0]) == (State.FAILED, "NotAllowed"), status
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "in/b").exists()
    assert "no allow-list" not in logged
    assert [one["level"] for one in found.document["checks"] if one["check"] == "fleet.access"] == ["ok"]


@pytest.mark.slow
def test_a_worker_refuses_for_itself_what_an_orchestrator_allows(
    redis_url: str, tmp_path: Path, rclone_memory_s3: S3Server
) -> None:
    url = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "store")
    snapshot = fill(open_trusted(url), random_files(3))
    jobs = Jobs(Settings(broker_url=redis_url))
    allows = CREDENTIALS | {"SNAPFERRY_ACCESS_ENDPOINTS": rclone_memory_s3.endpoint}
    orchestrators = Fleet(redis_url, tmp_path, allows)
    workers = Fleet(redis_url, tmp_path, CREDENTIALS)
    destination = StoreRef(url=f"file://{tmp_path}/b")
    with orchestrators.orchestrator(), workers.worker():
        status = ended(jobs, StoreRef(url=url), destination, snapshot_ids=[snapshot])
        # A command and the dashboard look for themselves, too.
        listed = snapferry("failures", status.job_id, "--broker", redis_url, "--json", env=CREDENTIALS)
        allowed = snapferry("failures", status.job_id, "--broker", redis_url, "--json", env=allows)
        pages = tmp_path / "pages.sqlite"
        code = (
            "import sqlite3, sys; from snapferry.workers.settings.environment import Settings;"
            f"from snapferry.orchestrator.dashboard.lookup import _TABLES, search_places; path = {str(pages)!r};"
            "sqlite3.connect(path).executescript(_TABLES);"
            f"search_places(Settings(broker_url={redis_url!r}), {status.job_id!r}, path)"
        )
        finished([sys.executable, "-c", code], CREDENTIALS)

    assert status.state is State.FAILED
    assert status.failed == status.objects_total > 0
    letters = [json.loads(line) for line in listed.out.splitlines()]
    assert {letter["error"] for letter in letters} == {"NotAllowed"}
    assert all("the worker on " in letter["detail"] for letter in letters)
    assert {letter["places"] for letter in letters} == {None}
    assert "this command on " in listed.err
    assert all(json.loads(line)["places"] for line in allowed.out.splitlines())
    assert "the dashboard on " in _read(pages, 0, 10).problem


def test_the_user_of_a_command_is_trusted_with_its_own_command_line(
    forge: Forge, tmp_path: Path, rclone_memory_s3: S3Server
) -> None:
    source = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "store")
    make_store(tmp_path / "a", random_files(3))
    old = make_store(tmp_path / "b", {"./old": b"old"})
    there = f"file://{tmp_path}/b"

    filled = forge.run(["sync", "--from", f"{tmp_path}/a", "--to", source, "--all", "-q"], env=CREDENTIALS)
    mirrored = forge.run(
        ["sync", "--from", source, "--to", there, "--all", "--delete", "-q"], env=CREDENTIALS
    )
    listed = forge.run(["ls", source], env=CREDENTIALS)
    refused = forge.run(["ls", "s3://b?endpoint_url=http://169.254.169.254"], env=CREDENTIALS)

    assert (filled.code, mirrored.code, listed.code) == (0, 0, 0), (filled.err, mirrored.err)
    assert open_store(there).list_manifest_ids() == listed.out.split() != [old]
    assert refused.code == 1
    assert "NotAllowed: " in refused.err
