"""The logs of a real fleet, in which things go well, wrong, and down."""

from __future__ import annotations

import json
import os
import signal
from importlib import metadata
from pathlib import Path
from typing import Any

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files
from tests.servers import S3Server

from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, Started
from .test_never_stuck import BEFORE_COUNTING, KILL_SELF, once

PASSWORD = "pass+word-of-the-broker"
SECRET = "aSecretAccessKeyThatIsLongEnough/40chars+"


def lines(role: Started) -> list[dict[str, Any]]:
    return [json.loads(line) for line in role.logged().splitlines()]


def only(found: list[dict[str, Any]], beginning: str, **fields: object) -> dict[str, Any]:
    """Return the one line that begins so and has these fields."""
    (line,) = [
        line for line in found if line["message"].startswith(beginning) and fields.items() <= line.items()
    ]
    return line


def test_each_thing_worth_knowing_is_one_line_that_says_whose_it_is_and_no_secret(
    rclone_s3: S3Server, tmp_path: Path
) -> None:
    files = random_files(99)
    snapshot = make_store(tmp_path / "a", files)
    (tmp_path / "a" / object_key(digest(next(iter(files.values()))))).unlink()
    whole = make_store(tmp_path / "w", random_files(99, seed=2))
    with_password = f"redis://:{PASSWORD.replace('+', '%2B')}@127.0.0.1:{{port}}/0"
    options = "--port", "{port}", "--requirepass", PASSWORD
    with own_redis(tmp_path / "redis", *options, url=with_password) as server:
        url = server.url
        fleet = Fleet(
            url,
            tmp_path,
            {**rclone_s3.environment, "AWS_SECRET_ACCESS_KEY": SECRET, "SNAPFERRY_BATCH_OBJECTS": "50"},
        )
        jobs = Jobs(Settings(broker_url=url, batch_objects=50))
        killed = once(tmp_path / "once", KILL_SELF) + BEFORE_COUNTING
        with fleet.orchestrator() as orchestrator, fleet.worker("one", before=killed) as worker:
            good = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "w"), str(tmp_path / "x")), [whole]))
            assert jobs.wait(good, timeout_s=PATIENCE_S).state is State.DONE
            bad = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
            assert jobs.wait(bad, timeout_s=PATIENCE_S).state is State.FAILED
            # A server that does not take these keys.
            denied = jobs.submit(
                JobSpec.of(
                    *store_pair(str(tmp_path / "w"), rclone_s3.url(rclone_s3.make_bucket(), "b")), [whole]
                )
            )
            assert jobs.wait(denied, timeout_s=PATIENCE_S).state is State.FAILED
            for role in (worker, orchestrator):
                os.kill(role.process.pid, signal.SIGTERM)
                assert role.process.wait(PATIENCE_S) == 0
            found = {name: lines(role) for name, role in (("one@", worker), ("orchestrator@", orchestrator))}

    for role, name in ((worker, "one@"), (orchestrator, "orchestrator@")):
        assert all(line["worker"].startswith(name) for line in found[name])
        assert only(found[name], f"{name}", version=metadata.version("snapferry"))["broker"].startswith(
            "redis://127.0.0.1:"
        )
        assert only(found[name], "shutdown on SIGTERM")
        assert only(found[name], "shutdown complete")
        for secret in (PASSWORD, SECRET, PASSWORD.replace("+", "%2B")):
            assert secret not in role.logged()
        said = [line["message"] for line in found[name]]
        assert not [message for message in said if "received" in message or "succeeded" in message]
        about_tasks = [line for line in found[name] if "task" in line]
        assert about_tasks
        assert all(line["job"] in (good, bad, denied) for line in about_tasks)

    assert only(found["orchestrator@"], "job begins", job=good)["source"] == f"file://{tmp_path}/w"
    assert only(found["orchestrator@"], "1 snapshot published", job=good)["snapshots"] == [whole]
    assert only(found["orchestrator@"], "job done", job=good)["copied"] == 100
    assert only(found["orchestrator@"], "job failed: ", job=bad)["level"] == "warning"
    assert only(found["orchestrator@"], "job failed: ", job=denied)
    ended = [
        line for line in found["one@"] if line["message"].startswith("batch ended") and line["job"] == bad
    ]
    assert sorted(line["batch"] for line in ended) == ["plan:0", "plan:1"]
    assert sum(line["copied"] for line in ended) == 99
    failed = only(found["one@"], "1 object failed", job=bad)
    assert (failed["level"], failed["error"], failed["objects"]) == ("error", "ObjectMissing", 1)
    # Nobody could do anything about what a traceback of an expected failure shows.
    tracebacks = [line for line in [*found["one@"], *found["orchestrator@"]] if "traceback" in line]
    assert not [line for line in tracebacks if "ObjectsFailed" in line["traceback"]]
    assert "WorkerLostError" in only(found["one@"], "Task handler raised error", job=good)["message"]
