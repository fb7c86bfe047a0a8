"""Lists of jobs, and what is kept of a job at its end."""

from __future__ import annotations

import pytest
import redis

from snapferry.orchestrator.driving import snapshot_rows
from snapferry.orchestrator.driving.snapshot_rows import _kept_rows, final_fields
from snapferry.workers.ledger import (
    PLAN,
    Ledger,
    State,
)
from snapferry.workers.ledger.keys import job_key
from tests.unit.ledger.support import (
    FINAL,
    INDEX,
    JOB,
    ONE,
    THREE,
    TWO,
    batch,
    counts,
    deliver,
    objects_in,
    request,
    settled,
)


def test_jobs_do_not_see_each_other(ledger: Ledger) -> None:
    ledger.create(request("other"))
    deliver(ledger, TWO, failed=[0])
    ledger.start_driving("job", "me")
    ledger.begin(THREE, "one")
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.pause("job", paused=True)
    ledger.cancel("job")

    other = ledger.standing("other")
    assert counts(ledger.status("other")) == (0, 0, 0)
    assert (other.paused, other.cancelling, other.leased, other.held) == (False, False, 0, ())
    assert (ledger.groups("other"), ledger.bitmap("other", "failed")) == ({}, b"")
    assert ledger.start_driving("other", "me") == 1
    assert not ledger.begin(batch(0, 1, job_id="other"), "one").accounted
    assert ledger.begin(batch(2, 1, job_id="other"), "one").times == 1


def test_the_rows_of_a_group_are_kept_as_they_were_settled_last(ledger: Ledger) -> None:
    ledger.record_group("job", 0, {0: ["published", 3, 1.5, ""], 1: ["failed", 2, 0.0, "für 概要"]})
    ledger.record_group("job", 12, {2: ["failed", 1, 0.0, "no"]})
    ledger.record_group("job", 12, {2: ["failed", 1, 0.0, "no"], 10: ["published", 1, 0.0, ""]})

    assert ledger.groups("job") == {
        0: {0: ["published", 3, 1.5, ""], 1: ["failed", 2, 0.0, "für 概要"]},
        12: {2: ["failed", 1, 0.0, "no"], 10: ["published", 1, 0.0, ""]},
    }


def test_no_value_in_redis_grows_with_the_snapshots_of_a_group(ledger: Ledger, client: redis.Redis) -> None:
    """A verify has all of its snapshots in one group."""
    rows = {
        index: ["verified", 1000, 10**9, 0, 1000, 0, 0, 1764190000.123, "x" * 50] for index in range(5500)
    }
    ledger.record_group("job", 3, {index: rows[index] for index in range(2500)})
    ledger.record_group("job", 3, rows)
    ledger.record_group("job", 4, {9999: rows[1]})

    assert ledger.groups("job") == {3: rows, 4: {9999: rows[1]}}
    key = job_key("job", "groups")
    assert client.hlen(key) == 7
    assert max(map(len, client.hvals(key))) < 200_000

    ledger.advance("job", State.DONE, **final_fields(ledger, "job"))
    ledger.remove_working_keys("job")
    assert dict(_kept_rows(ledger, "job")) == rows | {9999: rows[1]}


def test_rows_of_a_large_job_are_kept_in_several_fields(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {index: ["failed", 1, 1, 0, 0, 0, 1, 1.5, f"reason {index}"] for index in range(25)}
    ledger.record_group("job", 0, rows)
    monkeypatch.setattr(snapshot_rows, "ROWS_IN_A_FIELD", 10)

    fields = final_fields(ledger, "job")
    ledger.advance("job", State.FAILED, **fields)

    assert list(fields) == ["rows", "rows1", "rows2"]
    assert dict(_kept_rows(ledger, "job")) == rows


def test_what_a_job_needs_no_longer_is_removed_at_its_end_and_what_is_wanted_afterwards_is_kept(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.begin(ONE, "one")
    ledger.progress(ONE, "one", objects=0, size_bytes=50)
    deliver(ledger, TWO, failed=[1])
    deliver(ledger, THREE)
    for turn in (1, 2):
        ledger.note_healing("job", 0, turn=turn, batches=1)
        deliver(ledger, batch(0, 1, series=f"heal-0-{turn}"))
    ledger.note_healing("job", 4, turn=1, batches=1)
    deliver(ledger, batch(0, 1, series="heal-4-1", first=2))
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.start_driving("job", "me")
    ledger.pause("job", paused=True)
    ledger.begin(batch(3, 1), "two")
    ledger.advance("job", State.FAILED, error="the reason")
    before = ledger.status("job")

    ledger.remove_working_keys("job")
    ledger.remove_working_keys("job")

    parts = ("", ":done:plan", ":failures", ":failed", ":classes", ":running")
    assert {str(key) for key in client.scan_iter("snapferry:job:*")} == {f"{JOB}{part}" for part in parts}
    after = ledger.status("job")
    assert {**vars(after), "workers": ()} == {**vars(before), "workers": ()}
    assert settled(after) == (5, 61)
    assert objects_in(ledger, "failed") == [1]
    assert ledger.failed_by_class("job") == {"ObjectMissing": 1}
    assert ledger.unaccounted("job", PLAN, range(3)) == [2]
    assert len(ledger.failures("job")) == 1


@pytest.mark.parametrize("final", FINAL)
def test_a_job_is_open_until_it_ends_and_listed_until_its_record_is_gone(
    ledger: Ledger, client: redis.Redis, final: State
) -> None:
    ledger.create(request("other"))
    assert ledger.open_jobs() == ["job", "other"]
    assert list(ledger.job_ids()) == ["other", "job"]

    ledger.advance("job", final)

    assert ledger.open_jobs() == ["other"]
    ledger.forget("job")
    ledger.forget("other")
    assert list(ledger.job_ids()) == ["other", "job"]
    assert ledger.open_jobs() == ["other"]
    client.delete(JOB, "snapferry:job:other")
    ledger.forget("job")
    assert list(ledger.job_ids()) == ["other"]
    ledger.forget("other")
    assert (list(ledger.job_ids()), ledger.open_jobs()) == ([], [])


def many_jobs(ledger: Ledger, count: int) -> list[str]:
    """Create jobs one after the other; return their ids, the latest first."""
    found: list[str] = []
    for number in range(count):
        ledger.create(request(f"job-{number:03}"))
        # The clock of a fast machine may stand still between two of them.
        ledger.client.zadd(INDEX, {f"job-{number:03}": number})
        found.insert(0, f"job-{number:03}")
    return found


def test_the_latest_of_many_jobs_comes_first(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    created = many_jobs(ledger, 250)

    assert list(ledger.job_ids()) == created


def test_jobs_that_are_forgotten_while_they_are_listed_hide_no_others(client: redis.Redis) -> None:
    """`Jobs.list` forgets those whose record is gone as it comes across them."""
    ledger = Ledger(client, expires_s=3600)
    created = many_jobs(ledger, 250)
    gone = set(created[:90])
    client.delete(*(f"snapferry:job:{job_id}" for job_id in gone))

    found: list[str] = []
    for job_id in ledger.job_ids():
        found.append(job_id)
        ledger.forget(job_id)

    assert [job_id for job_id in found if job_id not in gone] == created[90:]


def test_a_mark_is_taken_once_until_its_time_is_up(ledger: Ledger, client: redis.Redis) -> None:
    assert ledger.claim_mark("look:job", 20)
    assert not ledger.claim_mark("look:job", 20)
    assert ledger.claim_mark("look:other", 20)
    (key,) = client.keys("*look:job")
    assert 0 < client.ttl(key) <= 20

    client.delete(key)

    assert ledger.claim_mark("look:job", 20)


def test_jobs_whose_records_have_expired_leave_the_list_of_all_jobs(ledger: Ledger) -> None:
    for number in range(6):
        ledger.create(request(f"job{number}"))
    for number in (0, 1, 3, 5):
        ledger.client.delete(f"snapferry:job:job{number}")

    assert ledger.forget_expired(5) == 3, "the five oldest are looked at"
    assert ledger.forget_expired(10) == 1
    assert ledger.forget_expired(10) == 0

    assert sorted(ledger.job_ids()) == ["job", "job2", "job4"]
    assert ledger.open_jobs() == ["job", "job2", "job4"]
