"""A mirror that is due: one job for each message, although a process may die at every step."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.due import Queued, queue_due
from snapferry.stores.access import TRUSTED
from snapferry.workers.ledger import Ledger, ScheduleLedger, State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings


class Killed(BaseException):
    """The process was killed at this point."""


class Mirror:
    """The mirror, and the fleet that has it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.jobs = Jobs(Settings(broker_url=url), check=False, access=TRUSTED)
        self.records = ScheduleLedger(self.client, "mirror")
        self.ledger = Ledger(self.client, expires_s=3600)
        self._folder = folder

    def spec(self) -> JobSpec:
        here, there = (StoreRef(url=f"file://{self._folder}/{name}") for name in "ab")
        return JobSpec(source=here, destination=there, everything=True)

    def due(self, message_id: str = "") -> Queued:
        return queue_due(self.jobs, self.records, "nightly", self.spec, message_id=message_id)

    def end(self, job_id: str) -> None:
        self.ledger.advance(job_id, State.DONE)


@pytest.fixture
def mirror(redis_url: str, tmp_path: Path) -> Mirror:
    return Mirror(redis_url, tmp_path)


def test_a_message_that_is_delivered_again_finds_its_job(mirror: Mirror) -> None:
    first = mirror.due("message")
    mirror.end(first.job_id)

    assert mirror.due("message") == first
    assert list(mirror.ledger.job_ids()) == [first.job_id]
    assert mirror.due("next message").job_id != first.job_id


@pytest.mark.parametrize("step", ["submit", "started"])
def test_a_process_that_dies_on_the_way_leaves_one_job(
    mirror: Mirror, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Jobs if step == "submit" else ScheduleLedger, step, killed)
        mirror.due("message")
    assert list(mirror.ledger.job_ids()) == []

    again = mirror.due("message")

    assert list(mirror.ledger.job_ids()) == [again.job_id] == [mirror.records.record("nightly").job_id]


def test_the_next_run_does_not_begin_beside_the_job_of_a_dead_process(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Jobs.submit

    def killed(jobs: Jobs, spec: JobSpec, *, schedule: str = "") -> str:
        submit(jobs, spec, schedule=schedule)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Jobs, "submit", killed)
        mirror.due("message")

    assert "has not ended" in mirror.due("next message").skipped


def test_a_run_is_counted_as_skipped_once_for_each_message(mirror: Mirror) -> None:
    mirror.due("first")

    for message in ("second", "second", "third"):
        assert "has not ended" in mirror.due(message).skipped

    assert mirror.records.record("nightly").skipped == 2


def test_an_old_message_after_a_later_one_changes_nothing(mirror: Mirror) -> None:
    old = mirror.due("old")
    mirror.end(old.job_id)
    later = mirror.due("later").job_id
    mirror.end(later)

    assert mirror.due("old") == old
    assert mirror.records.record("nightly").job_id == later


def test_while_another_process_has_the_lock_the_message_waits(mirror: Mirror) -> None:
    with mirror.records.taken("nightly", 30):
        assert mirror.due("message").busy
    assert not mirror.due("message").busy
