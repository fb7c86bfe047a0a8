"""What is told of failures, lateness and recoveries, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snapferry.orchestrator.notify.decide import REMEMBERED_S, Decision, Facts, decide
from snapferry.orchestrator.notify.records import Problem
from snapferry.workers.ledger import Expected, Freshness, JobStatus, State
from snapferry.workers.settings.notify_table import EventKind, Notify

DAY = 86400.0
NIGHTLY, BACKUP = "mirror:nightly", "scrub:backup"

Told = list[tuple[str, str]]


def job(job_id: str, state: State = State.FAILED, at: float = 1000.0, **fields: Any) -> JobStatus:
    """Return a job that ended in *state*."""
    numbers = {name: 0 for name, kind in JobStatus.__annotations__.items() if kind in ("int", "float")}
    flags = {"paused": False, "cancelling": False, "dry_run": False}
    texts = {
        "priority": "normal", "queue": "", "source": "s3://a/b", "destination": "file:///c", "first_snapshot": "",
        "error": "2 objects are missing",
    }  # fmt: skip
    known: dict[str, Any] = {
        **numbers, **flags, **texts, "workers": (), "job_id": job_id, "state": state, "ended_at": at,
    }  # fmt: skip
    return JobStatus(**(known | fields))


def fresh(
    key: str = NIGHTLY, *, late_at: float = 9e9, success: float = 0.0, now: float = 2000.0
) -> dict[str, Freshness]:
    kind, _, name = key.partition(":")
    expected = Expected("scrub" if kind == "scrub" else "mirror", name, "6h")
    return {key: Freshness(expected, 1.0, success, late_at, 0.0, now)}


def facts(*ended: JobStatus, of: str = "", now: float = 2000.0, **more: Any) -> Facts:
    schedules = {status.job_id: of for status in ended} if of else {}
    known: dict[str, Any] = {"now": now, "ended": ended, "schedules": schedules, "fresh": fresh()}
    return Facts(**(known | more))


def told(decision: Decision) -> Told:
    return [(event.kind.value + " again" * event.again, event.subject) for event in decision.events]


def after(known: dict[str, Problem], decision: Decision) -> dict[str, Problem]:
    merged = {**known, **decision.problems}
    return {subject: problem for subject, problem in merged.items() if problem is not None}


def test_a_mirror_that_fails_is_told_once_then_again_after_a_day_and_its_recovery_once() -> None:
    known: dict[str, Problem] = {}
    history = []
    for found in (
        facts(job("a"), of=NIGHTLY),
        facts(job("b", at=3000), of=NIGHTLY, now=3600),
        facts(now=2000 + DAY - 1),
        facts(now=2000 + DAY, standing={"b": job("b", at=3000)}),
        facts(now=2000 + DAY + 9),
        facts(job("c", State.CANCELLED), of=NIGHTLY, now=2000 + DAY + 10),
        facts(job("d", State.DONE), of=NIGHTLY, now=2000 + DAY + 20),
        facts(job("e", State.DONE), of=NIGHTLY, now=2000 + DAY + 30),
    ):
        decision = decide(found, known, Notify())
        known = after(known, decision)
        history.append(told(decision))
        assert decision.told == tuple(status.job_id for status in found.ended)

    assert history == [
        [("failed", NIGHTLY)],
        [],
        [],
        [("failed again", NIGHTLY)],
        [],
        [],
        [("recovered", NIGHTLY)],
        [],
    ]
    assert known == {}


def test_lateness_is_told_though_nothing_ran_and_its_end_once() -> None:
    late, fine = fresh(late_at=1500, success=100), fresh(late_at=9e9, success=1900)
    first = decide(facts(fresh=late), {}, Notify())
    known = after({}, first)
    second = decide(facts(fresh=late), known, Notify())
    third = decide(facts(fresh=fine), known, Notify())
    fourth = decide(facts(fresh=fine), after(known, third), Notify())

    assert [told(one) for one in (first, second, third, fourth)] == [
        [("late", NIGHTLY)],
        [],
        [("recovered", NIGHTLY)],
        [],
    ]
    assert known == {NIGHTLY: Problem(late=1500, told=2000)}
    assert third.events[0].since == 1500


def test_a_mirror_that_failed_is_told_as_late_too_and_recovers_once() -> None:
    first = decide(facts(job("a"), of=NIGHTLY), {}, Notify())
    known = after({}, first)
    late = decide(facts(fresh=fresh(late_at=1900), now=2500), known, Notify())
    known = after(known, late)
    end = decide(facts(job("b", State.DONE), of=NIGHTLY, now=2600), known, Notify())

    assert told(late) == [("late", NIGHTLY)]
    assert known[NIGHTLY] == Problem(failed=1000, late=1900, told=2500, job="a")
    assert told(end) == [("recovered", NIGHTLY)]
    assert after(known, end) == {}


def test_what_is_over_before_it_was_told_is_not_told() -> None:
    quick = decide(facts(job("a"), job("b", State.DONE, 1100), of=NIGHTLY), {}, Notify())
    retried = decide(facts(job("c", superseded=True)), {}, Notify())
    of_a_mirror = decide(facts(job("d", superseded=True), of=NIGHTLY), {}, Notify())

    assert [told(one) for one in (quick, retried, of_a_mirror)] == [[], [], []]
    assert all(not one.problems for one in (quick, retried, of_a_mirror))
    assert quick.told == ("a", "b")


def test_a_job_is_told_once_and_the_end_of_its_chain_once() -> None:
    first = decide(facts(job("one")), {}, Notify())
    known = after({}, first)
    second = decide(facts(job("two"), ancestors={"two": ["one"]}), known, Notify())
    known = after(known, second)
    third = decide(facts(job("three", State.DONE), ancestors={"three": ["two", "one"]}), known, Notify())

    assert told(first) == [("failed", "job:one")]
    assert told(second) == [("failed", "job:two")]
    assert known.keys() == {"job:two"}
    assert told(third) == [("recovered", "job:two")]
    assert after(known, third) == {}


def test_jobs_that_were_not_told_do_not_recover_and_cancelled_ones_are_no_failure() -> None:
    done = decide(facts(job("b", State.DONE), ancestors={"b": ["a"]}), {}, Notify())
    cancelled = decide(facts(job("c", State.CANCELLED)), {}, Notify())

    assert told(done) == told(cancelled) == []


def test_a_scrub_recovers_when_it_knows_of_no_wrong_object_any_more() -> None:
    known = {BACKUP: Problem(failed=500, told=600, job="a")}
    found: dict[str, Any] = {"fresh": fresh(BACKUP), "of": BACKUP}
    other_share = decide(facts(job("b", State.DONE), findings={"backup": 2}, **found), known, Notify())
    healed = decide(facts(job("c", State.DONE), findings={"backup": 0}, **found), known, Notify())

    assert told(other_share) == []
    assert not other_share.problems
    assert told(healed) == [("recovered", BACKUP)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("failed", "job:j"), ("failed", NIGHTLY), ("late", NIGHTLY)]),
        ({"jobs": "scheduled"}, [("failed", NIGHTLY), ("late", NIGHTLY)]),
        ({"events": ["late"]}, [("late", NIGHTLY)]),
        ({"events": ["failed", "recovered"]}, [("failed", "job:j"), ("failed", NIGHTLY)]),
        ({"events": []}, []),
    ],
)
def test_the_operator_chooses_what_is_told(options: dict[str, Any], expected: Told) -> None:
    table = Notify.model_validate(options)
    ended = (job("j"), job("m"))
    found = Facts(now=2000, ended=ended, schedules={"m": NIGHTLY}, fresh=fresh(late_at=1000))

    decision = decide(found, {}, table)

    assert told(decision) == expected
    assert decision.problems.keys() == {subject for _, subject in expected}


def test_without_recoveries_a_problem_ends_silently() -> None:
    known = {NIGHTLY: Problem(failed=5, told=6, job="a")}

    decision = decide(facts(job("b", State.DONE), of=NIGHTLY), known, Notify(events=(EventKind.FAILED,)))

    assert told(decision) == []
    assert decision.problems == {NIGHTLY: None}


def test_what_an_operator_forgot_is_over_silently_and_its_jobs_are_plain_jobs() -> None:
    known = {"mirror:old": Problem(late=5, told=6)}

    decision = decide(facts(job("x"), of="mirror:old"), known, Notify())

    assert told(decision) == [("failed", "job:x")]
    assert decision.problems["mirror:old"] is None


def test_a_repeat_of_never_tells_a_problem_once() -> None:
    known = {NIGHTLY: Problem(late=5, told=6)}

    assert told(decide(facts(fresh=fresh(late_at=5), now=1e9), known, Notify(repeat="never"))) == []


def test_problems_of_jobs_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.orchestrator.notify.decide.MOST_PROBLEMS", 3)
    storm = decide(facts(*(job(f"j{number}") for number in range(9)), job("m")), {}, Notify())
    old = decide(facts(now=2000 + REMEMBERED_S + 9), {"job:x": Problem(failed=1, told=2000)}, Notify())

    assert len(storm.events) == 10
    assert len(storm.problems) == 3
    assert old.problems == {"job:x": None}


def test_a_decision_is_the_same_when_it_is_made_again() -> None:
    found = facts(job("a"), of=NIGHTLY)

    assert decide(found, {}, Notify()) == decide(replace(found), {}, Notify())
