"""The state of mirrors and scrubs in files, for machines whose server ends with each run."""

from __future__ import annotations

import json
import os
import signal
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.orchestrator.schedules.state_file import StateError, StateFile
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger, RunEnd, ScheduleLedger, ScrubLedger, ScrubRun, State
from snapferry.workers.ledger.schedule_state import InvalidState, export_state, restore_state
from snapferry.workers.messages import JobSpec, ScrubPart, StoreRef

JOB = str(uuid.UUID(int=1))


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return client(redis_url)


def scrubbed(server: redis.Redis) -> ScrubLedger:
    """A scrub that has read one of its two shares, and found a wrong object in it."""
    scrubs = ScrubLedger(server)
    part = ScrubPart(name="backup", shares=2, share=0)
    scrubs.begin_cycle("file:///b", part)
    scrubs.started("backup", JOB)
    assert scrubs.settle(
        ScrubRun(
            JOB, "file:///b", part, part.first, RunEnd.READ, part.next.first,
            found=1, manifests=0, began_at=1.7e9, tried=True,
        )
    )  # fmt: skip
    return scrubs


def ledger_with_job(server: redis.Redis) -> Ledger:
    ledger = Ledger(server, expires_s=3600)
    ref = StoreRef(url="file:///b")
    ledger.create(JobSpec(job_id=JOB, source=ref, destination=ref, everything=True))
    return ledger


def test_a_scrub_goes_on_where_it_was_on_a_new_server(server: redis.Redis, tmp_path: Path) -> None:
    before = scrubbed(server)
    ledger_with_job(server).advance(JOB, State.FAILED, error="an object is wrong")
    file = StateFile(str(tmp_path / "state"), "scrub", "backup")
    with file.locked() as mine:
        assert mine
        state, record = before.state("backup"), before.record("backup")
        file.save(server)
        server.flushdb()

        assert file.restore(server) == ""

    after = ScrubLedger(server)
    assert (after.state("backup"), after.record("backup")) == (state, record)
    assert state is not None
    assert (state.share, state.verified, state.findings) == (1, 1, 1)
    status = Ledger(server, expires_s=3600).status(JOB)
    assert (status.state, status.error) == (State.FAILED, "an object is wrong")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_job_that_has_not_ended_counts_as_cancelled_because_its_server_ends(server: redis.Redis) -> None:
    mirrors = ScheduleLedger(server, "mirror")
    mirrors.started("nightly", JOB)
    ledger_with_job(server)

    document = json.loads(json.dumps(export_state(server, "mirror", "nightly")))
    server.flushdb()
    restore_state(server, "mirror", "nightly", document)

    assert Ledger(server, expires_s=3600).status(JOB).state is State.CANCELLED
    assert mirrors.record("nightly").job_id == JOB
    assert "spec" not in document["job"]


def test_without_a_file_nothing_is_known(server: redis.Redis, tmp_path: Path) -> None:
    assert StateFile(str(tmp_path), "mirror", "nightly").restore(server) == ""
    assert server.keys("*") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 5000,
        '{"version": 2}',
        '{"version": 1, "kind": "mirror", "name": "other"}',
    ],
)
def test_a_file_that_is_no_state_is_put_aside_and_the_run_begins_anew(
    server: redis.Redis, tmp_path: Path, text: str
) -> None:
    file = StateFile(str(tmp_path), "scrub", "backup")
    file.path.write_text(text)

    said = file.restore(server)

    (aside,) = tmp_path.iterdir()
    assert aside.name in said
    assert aside.read_text() == text
    assert server.keys("*") == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, server: redis.Redis) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        with pytest.raises(StateError, match=str(folder)), StateFile(str(folder), "mirror", "x").locked():
            pass
    file = StateFile(str(tmp_path), "mirror", "x")
    file.path.mkdir()
    with pytest.raises(StateError, match="Is a directory"):
        file.restore(server)
    with pytest.raises(StateError):
        file.save(server)
    assert not file.path.with_suffix(".tmp").exists()


def test_the_lock_is_that_of_one_mirror_and_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path), "mirror", "nightly")
    ready, ready_write = os.pipe()
    child = os.fork()
    if not child:
        with file.locked():
            os.write(ready_write, b"x")
            signal.pause()
    os.read(ready, 1)
    with file.locked() as mine, StateFile(str(tmp_path), "scrub", "nightly").locked() as other:
        assert (mine, other) == (False, True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with file.locked() as mine:
        assert mine


_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
_TABLES = st.dictionaries(st.sampled_from(["job", "state", "1", ""]), _LEAVES, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    parts=st.dictionaries(
        st.sampled_from(["record", "state", "verified", "findings", "job"]), _TABLES | _LEAVES
    )
)
def test_a_forged_document_is_refused_or_costs_nothing_but_itself(
    server: redis.Redis, parts: dict[str, Any]
) -> None:
    server.flushdb()
    try:
        restore_state(server, "scrub", "backup", {"version": 1, "kind": "scrub", "name": "backup", **parts})
    except InvalidState:
        assert server.keys("*") == []
    scrubs = ScrubLedger(server)
    scrubs.state("backup")
    scrubs.record("backup")
