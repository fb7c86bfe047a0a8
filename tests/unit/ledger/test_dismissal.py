"""Failed jobs that are over without a retry: dismissed by an operator, or overtaken by a later run of their mirror."""

from __future__ import annotations

import time

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.jobs.index import JobIndex
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.text.status import state_text, status_lines
from snapferry.workers.ledger import DISMISSED, LONGEST_NOTE, SUPERSEDED, Ledger, State
from snapferry.workers.settings.environment import Settings
from tests.unit.ledger.support import JOB, request

NIGHTLY = "mirror:nightly"


def ended(
    ledger: Ledger, job_id: str, state: State = State.FAILED, *, schedule: str = "", **link: str
) -> None:
    """Create a job, and bring it to its end."""
    ledger.create(request(job_id).model_copy(update=link), schedule=schedule)
    if state is not State.QUEUED:
        ledger.advance(job_id, state)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    """A ledger with the job "job", which failed."""
    ledger = Ledger(client, expires_s=3600)
    ended(ledger, "job")
    return ledger


def states(ledger: Ledger) -> dict[str, str]:
    """Return the state of each job, in which all ways to read it agree."""
    listed = {entry.job_id: state for entry, state, _ in JobIndex(ledger).listing().jobs}
    ids = list(listed)
    assert dict(zip(ids, ledger.states(ids), strict=True)) == listed
    for status in ledger.statuses(ids):
        assert status.unresolved == (listed[status.job_id] == "failed")
        assert (DISMISSED in state_text(status)) == (listed[status.job_id] == DISMISSED)
    return listed


def test_a_dismissed_job_is_failed_but_does_not_count_until_that_is_taken_back(ledger: Ledger) -> None:
    before = time.time()
    assert ledger.dismiss("job", dismissed=True, by="ann@desk", why="the bucket is gone") is State.FAILED

    status = ledger.status("job")
    assert (status.state, states(ledger)) == (State.FAILED, {"job": DISMISSED})
    assert status.dismissed is not None
    assert (status.dismissed.by, status.dismissed.why) == ("ann@desk", "the bucket is gone")
    assert before - 5 <= status.dismissed.at <= time.time() + 5
    assert not advise(status)
    assert any("by ann@desk: the bucket is gone" in line for line in status_lines(status, {}))

    assert ledger.dismiss("job", dismissed=False) is State.FAILED
    assert states(ledger) == {"job": "failed"}
    assert ledger.status("job").dismissed is None
    assert advise(ledger.status("job"))


@pytest.mark.parametrize("state", [State.QUEUED, State.COPYING, State.DONE, State.CANCELLED])
def test_only_failed_jobs_are_dismissed(client: redis.Redis, state: State) -> None:
    ledger = Ledger(client, expires_s=3600)
    ended(ledger, "job", state)

    assert ledger.dismiss("job", dismissed=True, by="ann") is state
    assert ledger.status("job").dismissed is None
    assert not client.hexists(JOB, "dismissed_at")


def test_a_dismissed_job_is_neither_told_nor_an_open_problem_any_more(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.zadd("snapferry:untold", {"job": 1.0, "other": 2.0})
    client.hset("snapferry:notify:problems", mapping={"job:job": "{}", "job:other": "{}"})

    ledger.dismiss("job", dismissed=True)

    assert client.zrange("snapferry:untold", 0, -1) == ["other"]
    assert client.hkeys("snapferry:notify:problems") == ["job:other"]


def test_a_chain_is_over_when_its_last_job_is_dismissed(ledger: Ledger) -> None:
    ended(ledger, "second", retries="job")
    ended(ledger, "third", resumes="second")

    ledger.dismiss("third", dismissed=True, by="ann")
    assert states(ledger) == {"job": DISMISSED, "second": DISMISSED, "third": DISMISSED}

    ended(ledger, "fourth", retries="third")
    assert states(ledger) == {"job": "failed", "second": "failed", "third": DISMISSED, "fourth": "failed"}
    ended(ledger, "fifth", State.DONE, retries="fourth")
    assert set(states(ledger).values()) == {SUPERSEDED, "done"}


def test_a_later_run_of_the_mirror_supersedes_failed_runs_and_their_retries(
    ledger: Ledger, client: redis.Redis
) -> None:
    ended(ledger, "run", schedule=NIGHTLY)
    ended(ledger, "retry", retries="run")
    ended(ledger, "again", retries="retry")
    ended(ledger, "scrub", schedule="scrub:nightly")
    client.zadd("snapferry:success:mirror", {"other": time.time() + 60})
    assert set(states(ledger).values()) == {"failed"}
    assert ledger.status("again").mirror == "nightly"

    client.zadd("snapferry:success:mirror", {"nightly": time.time() + 60})
    found = states(ledger)

    assert found == {"job": "failed", "scrub": "failed"} | dict.fromkeys(
        ["run", "retry", "again"], SUPERSEDED
    )
    # A success before the failure proves nothing.
    client.zadd("snapferry:success:mirror", {"nightly": time.time() - 60})
    assert states(ledger)["run"] == "failed"


def test_damaged_dismissals_and_schedules_cost_nothing_else(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(
        JOB,
        mapping={
            "dismissed_at": "\x1b[31mnever",
            "dismissed_by": "\x07" * 2000,
            "dismissed_why": "\u202e" * 2000,
            "schedule": "mirror:../../x",
            "chain_schedule": "mirror:" + "n" * 300,
        },
    )
    status = ledger.status("job")

    assert states(ledger) == {"job": DISMISSED}
    assert (status.mirror, status.dismissed and status.dismissed.at) == ("", 0.0)
    assert all(line.isprintable() for line in status_lines(status, {}))


def test_notes_are_cut_and_a_dismissal_expires_with_its_job(ledger: Ledger, client: redis.Redis) -> None:
    before = client.ttl(JOB)
    ledger.dismiss("job", dismissed=True, by="b" * 9000, why="w" * 9000)
    found = ledger.status("job").dismissed

    assert found is not None
    assert (len(found.by), len(found.why)) == (LONGEST_NOTE, LONGEST_NOTE)
    assert before - 5 <= client.ttl(JOB) <= before


def test_jobs_refuse_to_dismiss_what_has_not_failed(redis_url: str, client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ended(ledger, "done", State.DONE)
    jobs = Jobs(Settings(broker_url=redis_url))

    with pytest.raises(Exception, match="job done has not failed: it is done"):
        jobs.dismiss("done", by="ann")
