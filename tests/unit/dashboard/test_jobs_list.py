"""The list of jobs: searched, filtered, sorted, and turned in pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from snapferry.orchestrator.dashboard.views.attention import FAILED_LOOKED_AT
from snapferry.orchestrator.dashboard.views.jobs import JOBS_SHOWN, jobs_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.jobs import JobQuery, Sort, index
from snapferry.workers.ledger import SUPERSEDED, JobEntry, Ledger, State

from .support import Shown, page

NIGHTLY = {"schedule": "mirror:nightly"}


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    """A ledger with five jobs, "a" submitted first."""
    add(ledger, "a", "done", "file:///photos", "s3://backup/photos", failed=0, copied=900, submitted=5)
    add(
        ledger,
        "b",
        "failed",
        "file:///photos",
        "s3://backup/photos?region=x",
        failed=7,
        copied=10,
        submitted=4,
    )
    add(
        ledger,
        "c",
        "copying",
        "file:///mail",
        "s3://backup/mail",
        failed=1,
        copied=50,
        submitted=3,
        **NIGHTLY,
    )
    add(ledger, "d", "failed", "file:///mail", "s3://backup/mail", failed=3, copied=0, submitted=2, **NIGHTLY)
    add(ledger, "e", "done", "file:///mail", "file:///mail", submitted=1, action="verify", continues="d")
    ledger.client.hset("snapferry:job:d", "continued_by", "e")
    return ledger


def add(
    ledger: Ledger, job_id: str, state: str, source: str, destination: str, *, submitted: float, **fields: Any
) -> None:
    """Write the record of a job that was submitted so many minutes ago, and ran for ten seconds."""
    at = time.time() - 60 * submitted
    record: dict[Any, Any] = {
        "state": state, "source": source, "destination": destination, "submitted_at": at, "started_at": at,
        "objects_total": 1000, "bytes_total": 1000, "objects_settled": 500, "bytes_copied": fields.get("copied", 0),
    } | fields  # fmt: skip
    if State(state).final:
        record["ended_at"] = at + 10
    else:
        ledger.client.sadd("snapferry:open", job_id)
    ledger.client.hset(f"snapferry:job:{job_id}", mapping=record)
    ledger.client.zadd("snapferry:jobs", {job_id: at})


def listed(sources: Sources, **given: str) -> str:
    found = jobs_page(sources, given)
    page("jobs.html", **found)
    return "".join(line.status.job_id for line in found["lines"])


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("given", "jobs"),
    [
        ({}, "edcba"),
        ({"state": "open"}, "c"),
        ({"state": "failed"}, "b"),
        ({"state": "superseded"}, "d"),
        ({"state": "done"}, "ea"),
        ({"state": "nonsense"}, "edcba"),
        ({"q": "photos"}, "ba"),
        ({"q": "PHOTOS  s3://"}, "ba"),
        ({"q": "mirror:nightly"}, "dc"),
        ({"q": "nightly failed"}, ""),
        ({"q": "verify"}, "e"),
        ({"q": "copy mail"}, "dc"),
        ({"q": "b"}, "dcba"),
        ({"q": "<script>"}, ""),
        ({"store": "s3://backup/photos"}, "ba"),
        ({"store": "s3://backup"}, ""),
        ({"store": "file:///mail", "state": "superseded"}, "d"),
        ({"dir": "up"}, "abcde"),
        ({"sort": "failed"}, "bdcea"),
        ({"sort": "failed", "dir": "up"}, "eacdb"),
        ({"sort": "throughput"}, "abced"),
        ({"sort": "state", "q": "file:///mail"}, "ced"),
        ({"sort": "progress"}, "edbca"),
        # The open job is as old as its submission.
        ({"sort": "age"}, "edcba"),
        ({"sort": "age", "dir": "down"}, "abcde"),
        ({"sort": "nonsense", "dir": "nonsense"}, "edcba"),
    ],
    ids=str,
)
def test_jobs_are_selected_and_sorted(sources: Sources, given: dict[str, str], jobs: str) -> None:
    assert listed(sources, **given) == jobs


@pytest.mark.usefixtures("ledger")
def test_the_counts_of_states_are_those_of_the_search_and_tiles_count_all_jobs(sources: Sources) -> None:
    found = jobs_page(sources, {"q": "photos", "state": "done"})
    shown = Shown(page("jobs.html", **found))

    assert [link.text for link in found["choices"]] == ["all 2", "open 0", "done 1", "failed 1"]
    assert [link.text for link in found["choices"] if link.current] == ["done 1"]
    assert shown.figures["Open jobs"] == "1"
    assert shown.figures["Failed jobs"] == "1 1 superseded"
    assert found["stores"] == [("file:///photos", 2, False), ("s3://backup/photos", 2, False)]


@pytest.mark.usefixtures("ledger")
def test_every_link_keeps_what_was_chosen(sources: Sources) -> None:
    given = {"q": "mail", "state": "superseded", "store": "file:///mail", "sort": "failed", "dir": "up"}
    found = jobs_page(sources, given)

    kept = {name: [value] for name, value in given.items()}
    choices = {link.text.split()[0]: parse_qs(urlsplit(link.href).query) for link in found["choices"]}
    assert choices["superseded"] == kept
    assert choices["open"] == kept | {"state": ["open"]}
    columns = {column.text: parse_qs(urlsplit(column.href).query) for column in found["columns"]}
    unsorted = {name: value for name, value in kept.items() if name not in ("sort", "dir")}
    assert columns["Failed"] == unsorted | {"sort": ["failed"]}
    assert columns["Job"] == unsorted
    assert [column.sort for column in found["columns"] if column.sort] == ["ascending"]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("state", "jobs"), [(None, "edcba"), ("failed", "b"), ("superseded", "d"), ("done", "ea"), ("queued", "")]
)
def test_the_command_line_lists_the_same_jobs(sources: Sources, state: str | None, jobs: str) -> None:
    assert "".join(status.job_id for status in sources.jobs.list(limit=9, state=state)) == jobs


def test_pages_of_many_jobs_follow_each_other(sources: Sources, ledger: Ledger) -> None:
    for number in range(2 * JOBS_SHOWN):
        add(ledger, f"x{number:03}", "done", "/a", "/b", submitted=100 + number)

    pages = [jobs_page(sources, {"q": "x"}, page=number) for number in (1, 2, 3, 99)]

    ids = [[line.status.job_id for line in found["lines"]] for found in pages]
    assert [*ids[0], *ids[1]] == [f"x{number:03}" for number in range(2 * JOBS_SHOWN)]
    assert ids[2] == ids[3] == ids[1]
    assert pages[0]["pages"].older == "/?q=x&page=2"
    assert (pages[0]["pages"].total, pages[3]["pages"].last) == (100, 100)


def test_the_requests_of_a_page_do_not_grow_with_the_jobs(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [0]
    real = redis.Connection.send_packed_command

    def send(connection: redis.Connection, *arguments: Any, **options: Any) -> None:
        asked[0] += 1
        real(connection, *arguments, **options)

    monkeypatch.setattr(redis.Connection, "send_packed_command", send)

    def requests() -> int:
        # The first page loads scripts, and reads all jobs.
        jobs_page(sources, {})
        asked[0] = 0
        jobs_page(sources, {"q": "file", "sort": "failed"})
        return asked[0]

    few = requests()
    for number in range(1200):
        add(ledger, f"x{number:04}", "done", "file:///a", "/b", submitted=100 + number)

    assert 0 < requests() <= few + 2


def noted(ledger: Ledger, method: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let *method* note the ids of the jobs that it reads, in the list that is returned."""
    read: list[str] = []
    real = getattr(ledger, method)

    def reading(job_ids: Sequence[str]) -> Any:
        read.extend(job_ids)
        return real(job_ids)

    monkeypatch.setattr(ledger, method, reading)
    return read


def test_no_job_is_read_twice_for_a_page_and_of_failed_ones_only_those_to_tell(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3 * FAILED_LOOKED_AT):
        add(ledger, f"f{number:03}", "failed", "/a", "/b", submitted=9 + number, continued_by="gone")
    for number in range(2 * FAILED_LOOKED_AT):
        add(ledger, f"g{number:03}", "failed", "/a", "/b", submitted=999 + number)
    read = noted(ledger, "statuses", monkeypatch)
    found = jobs_page(sources, {})

    assert len(read) == len(set(read)) <= JOBS_SHOWN + FAILED_LOOKED_AT
    # However many later jobs failed and are continued, those that nobody repairs are told.
    told = [one.href for one in found["attentions"] if one.href.startswith("/jobs/")]
    told = [href for href in told if href != "/jobs/c"]
    assert told[0] == "/jobs/b"
    assert told[1:] == [f"/jobs/g{number:03}" for number in range(len(told) - 1)]
    assert len(told) > 2


def test_what_ended_is_read_again_now_and_then(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    read = noted(ledger, "entries", monkeypatch)

    def jobs() -> str:
        read.clear()
        sources.jobs.page(JobQuery(), first=0, count=50)
        return "".join(sorted(read))

    assert jobs() == "abcde"
    assert jobs() == "c"
    clock[0] += index.FAILED_S
    assert jobs() == "bcd"
    ledger.client.delete("snapferry:job:a")
    ledger.client.zrem("snapferry:jobs", "e")
    clock[0] += index.ENDED_S
    assert jobs() == "abcd"
    assert listed(sources) == "dcb"
    # Its continuation is not known any more.
    assert sources.jobs.page(JobQuery(), first=0, count=1).by_state[SUPERSEDED] == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "nonsense"},
        {"failed": "many"},
        {"submitted_at": "nan"},
        {"copied": "9" * 4000},
        {"source": "\x00\x1b[31m\u202e" * 500},
        {"continued_by": "../../x"},
        {"continued_by": "b"},
        {"schedule": "<b>"},
    ],
    ids=str,
)
@pytest.mark.parametrize("sort", Sort)
def test_a_damaged_record_costs_that_job_at_most(
    sources: Sources, ledger: Ledger, damage: dict[Any, Any], sort: Sort
) -> None:
    ledger.client.hset("snapferry:job:b", mapping=damage)

    found = listed(sources, sort=sort)

    assert set("acde") <= set(found)


def test_a_key_of_another_type_is_no_job(sources: Sources, ledger: Ledger) -> None:
    ledger.client.delete("snapferry:job:b")
    ledger.client.set("snapferry:job:b", "text")

    assert listed(sources) == "edca"


@pytest.mark.usefixtures("ledger")
def test_jobs_that_have_ended_are_read_once_however_many_pages_are_asked_for_at_once(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    entries = Ledger.entries
    waits = threading.Event()

    def slowly(self: Ledger, job_ids: Sequence[str]) -> list[JobEntry]:
        read.extend(job_ids)
        waits.wait(0.2)
        return entries(self, job_ids)

    monkeypatch.setattr(Ledger, "entries", slowly)
    pages = [threading.Thread(target=sources.jobs.listing) for _ in range(3)]
    for each in pages:
        each.start()
    for each in pages:
        each.join()

    # "c" has not ended.
    assert sorted(one for one in read if one != "c") == ["a", "b", "d", "e"]
