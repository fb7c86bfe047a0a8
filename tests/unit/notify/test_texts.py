"""Notifications as plain text: what they name, and what no foreign text can do to them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.notify.decide import Event
from snapferry.orchestrator.notify.plain import plain
from snapferry.orchestrator.notify.texts import LISTED, Text, compose
from snapferry.orchestrator.schedules.lateness import Standing
from snapferry.workers.ledger import State
from snapferry.workers.ledger.state import Waiting
from snapferry.workers.settings.notify_table import EventKind, Notify

from .test_decide import NIGHTLY, fresh, job

NOW = 1_000_000.0
MARKUP = set("<>[]{}|*`@&$\\~\n\x1b\u202e")


def failed(subject: str = "job:7f3a1b2c-0", **fields: Any) -> Event:
    status = job(
        subject.partition(":")[2] if subject.startswith("job:") else "7f3a1b2c-0", at=NOW - 60, **fields
    )
    return Event(EventKind.FAILED, subject, NOW - 60, status)


def late(**changed: Any) -> Event:
    found = fresh(late_at=NOW - 3600, success=NOW - 90_000, now=NOW)[NIGHTLY]
    return Event(EventKind.LATE, NIGHTLY, NOW - 3600, None, type(found)(**(vars(found) | changed)))


def text(*events: Event, schedule: Standing | None = None, **options: Any) -> Text:
    schedules = {NIGHTLY: schedule or Standing(None, NOW + 60)}
    return compose(events, schedules, Notify.model_validate(options), NOW)


def commands(found: Text) -> list[list[str]]:
    return [shlex.split(line) for line in found.body.splitlines() if line.startswith("    ")]


def test_a_failed_job_is_told_with_its_stores_its_reason_and_the_next_command() -> None:
    found = text(failed(failed=2, objects_total=9, batches_total=1, batches_done=1, cause="ObjectMissing"))

    assert found.title == "snapferry: job 7f3a1b2c failed"
    assert found.kind == "failure"
    assert "from s3://a/b to file:///c" in found.body
    assert "Why: 2 objects are missing" in found.body
    assert commands(found) == [["snapferry", "retry", "7f3a1b2c-0"]]
    assert found.id in found.body


def test_a_command_inside_the_advice_is_shown_exactly_or_not_at_all() -> None:
    damaged: dict[str, Any] = {
        "failed": 2,
        "objects_total": 9,
        "batches_total": 1,
        "batches_done": 1,
        "cause": "ObjectMissing",
    }

    exact = text(failed(**damaged, source="s3://a/b"))
    marked = text(failed(**damaged, source="s3://a/b?endpoint_url=http://x&region=y"))

    assert "from another copy (snapferry heal s3://a/b --from OTHER_STORE --" in exact.body
    assert "from another copy, then copy" in marked.body


@pytest.mark.parametrize(
    ("changed", "schedule", "command"),
    [
        ({"removed_at": NOW - 9000}, Standing(None, None), "snapferry mirrors --forget nightly"),
        ({}, Standing(None, None), "snapferry scheduler"),
        # Its scheduler is dead: the next run was due long ago.
        ({}, Standing(job("a", State.DONE), NOW - 9000), "snapferry scheduler"),
        ({}, Standing(None, NOW + 60), "snapferry mirrors"),
        ({}, Standing(job("a", State.COPYING, paused=True), NOW + 60), "snapferry continue a"),
        ({}, Standing(job("a", State.COPYING, moved_at=4e9), NOW + 60), "snapferry status a"),
        # It has not moved for long.
        ({}, Standing(job("a", State.COPYING), NOW + 60), "snapferry worker"),
        ({}, Standing(job("a", State.CANCELLED), NOW + 60), "snapferry resume a"),
        ({}, Standing(job("a", State.DONE), NOW + 60), "snapferry mirrors"),
    ],
)
def test_lateness_is_told_with_its_cause_and_the_next_command(
    changed: dict[str, float], schedule: Standing, command: str
) -> None:
    found = text(late(**changed), schedule=schedule, fleet="production")

    assert found.title == "production: mirror nightly is late"
    assert found.kind == "warning"
    assert "Last success: 1970-01-11 12:46 UTC, 1 d ago." in found.body
    assert commands(found) == [command.split()]


def test_a_mirror_that_never_succeeded_says_so() -> None:
    assert "It has not succeeded yet." in text(late(success_at=0.0)).body


def test_a_recovery_names_the_job_and_when_the_problem_began() -> None:
    found = text(Event(EventKind.RECOVERED, NIGHTLY, NOW - 7200, job("abc", State.DONE, NOW - 5)))

    assert found.title == "snapferry: mirror nightly has recovered"
    assert found.kind == "success"
    assert "abc" in found.body
    assert commands(found) == []


def test_ten_thousand_failed_jobs_are_one_short_message() -> None:
    storm = [
        failed(f"job:{number:05}-x", cause="AccessDenied" if number % 4 else "StoreFull")
        for number in range(10_000)
    ]
    mirror = Event(EventKind.FAILED, NIGHTLY, NOW, job("m", at=NOW))

    found = text(*storm, mirror, late(), late())

    assert found.title == "snapferry: 1 mirror and 10,000 jobs failed, 2 mirrors late"
    assert len(found.body) < 5000
    assert found.body.startswith("Mirror nightly failed")
    assert f"And {10_001 - LISTED:,} jobs more failed." in found.body
    assert "AccessDenied" in found.body
    assert ["snapferry", "jobs"] in commands(found)


def test_the_same_events_have_the_same_id_in_any_order_and_others_have_another() -> None:
    one, two = failed("job:a"), failed("job:b")

    assert text(one, two).id == text(two, one).id != text(one).id


HOSTILE = (
    "<script>alert(1)</script> [click](http://evil.example/x) *bold* `code` <!channel> @everyone &lt; ${x} ~~x~~"
    " https://user:hunter2hunter2@evil.example \x1b[31m \u202e\nBcc: victim@example"
)


def test_foreign_text_has_no_markup_no_links_no_secrets_and_no_lines_of_its_own() -> None:
    status = job(
        "7f3a",
        error=HOSTILE,
        source=f"s3://{HOSTILE}",
        destination=f"file:///{HOSTILE}",
        cause=HOSTILE,
        at=NOW,
    )
    for found in (
        text(Event(EventKind.FAILED, "job:7f3a", NOW, status)),
        text(*[Event(EventKind.FAILED, f"job:{number}", NOW, status) for number in range(9)]),
        text(late(), schedule=Standing(status, NOW + 60)),
        text(
            late(),
            schedule=Standing(
                job(
                    "7f3a",
                    State.COPYING,
                    source=HOSTILE,
                    destination=HOSTILE,
                    waiting=Waiting(HOSTILE, HOSTILE, NOW - 9),
                ),
                NOW + 60,
            ),
        ),
    ):
        assert not MARKUP & set(found.title + found.body.replace("\n", ""))
        assert "http://" not in found.body
        assert "https://" not in found.body
        assert "hunter2" not in found.body
        assert not any(line.startswith("Bcc") for line in found.body.splitlines())
        # A command is shown exactly or not at all.
        assert {command[1] for command in commands(found)} <= {"retry", "resume", "jobs"}


def test_web_addresses_are_cut_in_two_in_any_spelling_and_names_of_stores_are_not() -> None:
    assert plain("hTTpS://x.example http://http://y s3://bucket/a file:///b") == (
        "hTTpS: //x.example http: //http: //y s3://bucket/a file:///b"
    )


@given(st.text(max_size=2000), st.integers(1, 500))
def test_plain_text_is_short_printable_and_without_markup(foreign: str, most: int) -> None:
    found = plain(foreign, most)

    # A web address is cut in two, which takes a space.
    assert len(found) <= most + most // 7 + 1
    assert found.isprintable()
    assert not MARKUP & set(found)
    assert "http://" not in found
    assert "https://" not in found


AGAIN = ("snapferry", "run", "--config", "/etc/a b/snapferry.toml", "mirror:nightly")


@pytest.mark.parametrize(
    "event",
    [
        failed(NIGHTLY, cause="StoreNotFound"),
        failed(NIGHTLY, failed=2, objects_total=9, batches_total=1, batches_done=1, cause="ObjectMissing"),
        late(),
    ],
)
def test_on_one_machine_the_advice_is_the_run_and_nothing_that_needs_a_fleet(event: Event) -> None:
    for schedule in (Standing(), Standing(job("7f3a1b2c-0", at=NOW - 60), None)):
        found = compose([event], {NIGHTLY: schedule}, Notify(), NOW, AGAIN)

        assert commands(found) == [list(AGAIN)]
        assert not any(word in found.body for word in ("resume", "snapferry retry", "scheduler", "schedule."))
