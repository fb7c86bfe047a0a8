"""The chain of a job and the jobs that continue it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from snapferry.workers.ledger import SUPERSEDED, Ledger, State
from tests.unit.ledger.support import JOB, request


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    """A ledger with the job "first", which failed."""
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request("first"))
    ledger.advance("first", State.FAILED)
    return ledger


def follow(ledger: Ledger, job_id: str, state: State, **link: Any) -> None:
    """Create a job that continues another one, and bring it to *state*."""
    ledger.create(request(job_id).model_copy(update=link))
    if state is not State.QUEUED:
        ledger.advance(job_id, state)


def links(ledger: Ledger, job_id: str) -> tuple[str, str, bool]:
    status = ledger.status(job_id)
    return status.continues, status.continued_by, status.superseded


@pytest.mark.parametrize("link", ["retries", "resumes"])
def test_a_job_and_its_continuation_know_each_other(ledger: Ledger, link: str) -> None:
    follow(ledger, "second", State.COPYING, **{link: "first"})

    assert links(ledger, "first") == ("", "second", False)
    assert links(ledger, "second") == ("first", "", False)
    assert ledger.status("first").state is State.FAILED


@pytest.mark.parametrize(
    ("states", "superseded"),
    [
        ([], False),
        ([State.QUEUED], False),
        ([State.COPYING], False),
        ([State.FAILED], False),
        ([State.CANCELLED], False),
        ([State.DONE], True),
        ([State.FAILED, State.DONE], True),
        ([State.CANCELLED, State.DONE], True),
        ([State.FAILED, State.FAILED, State.DONE], True),
        ([State.FAILED, State.FAILED, State.COPYING], False),
        ([State.DONE, State.FAILED], True),
    ],
)
def test_a_failed_job_is_superseded_when_a_job_of_its_chain_is_done(
    ledger: Ledger, states: list[State], superseded: bool
) -> None:
    before = "first"
    for number, state in enumerate(states):
        follow(ledger, f"next-{number}", state, resumes=before)
        before = f"next-{number}"

    assert ledger.status("first").superseded is superseded
    assert ledger.statuses(["first"])[0].superseded is superseded
    assert ledger.states(["first"]) == [SUPERSEDED if superseded else "failed"]


@pytest.mark.parametrize("state", [State.CANCELLED, State.COPYING, State.DONE])
def test_only_a_failed_job_is_superseded(client: redis.Redis, state: State) -> None:
    ledger = Ledger(client, expires_s=3600)
    follow(ledger, "first", state)
    follow(ledger, "second", State.DONE, resumes="first")

    assert not ledger.status("first").superseded
    assert ledger.states(["first", "second"]) == [state, "done"]


def test_the_newest_continuation_counts(ledger: Ledger) -> None:
    follow(ledger, "second", State.FAILED, retries="first")
    follow(ledger, "third", State.DONE, retries="first")

    assert links(ledger, "first") == ("", "third", True)
    assert not ledger.status("second").superseded


def test_a_continuation_that_is_withdrawn_is_not_linked(ledger: Ledger, client: redis.Redis) -> None:
    follow(ledger, "second", State.FAILED, retries="first")
    follow(ledger, "third", State.QUEUED, retries="first")

    assert ledger.withdraw("third", continues="first")
    assert links(ledger, "first")[1] == "second"

    client.delete("snapferry:job:second")
    ledger.create(request("alone"))
    ledger.advance("alone", State.FAILED)
    follow(ledger, "fourth", State.QUEUED, retries="alone")
    assert ledger.withdraw("fourth", continues="alone")
    assert links(ledger, "alone") == ("", "", False)


def test_a_continuation_that_began_stays_linked(ledger: Ledger) -> None:
    follow(ledger, "second", State.COPYING, retries="first")

    assert not ledger.withdraw("second", continues="first")
    assert links(ledger, "first")[1] == "second"


def test_a_submission_that_is_repeated_changes_no_link(ledger: Ledger) -> None:
    follow(ledger, "second", State.FAILED, retries="first")
    follow(ledger, "third", State.DONE, retries="first")
    ledger.create(request("second").model_copy(update={"retries": "first"}))

    assert links(ledger, "first")[1] == "third"


def test_a_record_that_expired_is_not_brought_back(ledger: Ledger, client: redis.Redis) -> None:
    client.delete("snapferry:job:first")
    follow(ledger, "second", State.DONE, retries="first")

    assert not client.exists("snapferry:job:first")
    assert ledger.states(["first", "second"]) == ["", "done"]


@pytest.mark.parametrize("planted", ["first", "../x", "a b", "nobody", "", "x" * 70])
def test_a_link_that_somebody_planted_does_no_harm(ledger: Ledger, client: redis.Redis, planted: str) -> None:
    client.hset("snapferry:job:first", "continued_by", planted)

    assert not ledger.status("first").superseded
    assert ledger.states(["first"]) == ["failed"]


def test_a_damaged_continuation_concerns_that_job_alone(ledger: Ledger, client: redis.Redis) -> None:
    follow(ledger, "second", State.DONE, retries="first")
    ledger.create(request("other"))
    ledger.advance("other", State.FAILED)
    client.hset("snapferry:job:other", "continued_by", "broken")
    client.set(f"{JOB.removesuffix('job')}broken", "text")

    assert [each.superseded for each in ledger.statuses(["first", "other"])] == [True, False]
    assert ledger.states(["other", "first"]) == ["failed", SUPERSEDED]
