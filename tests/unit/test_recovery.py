"""Exports of jobs and schedules: what they have, what is refused, and what is made of them in an empty Redis."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving.snapshot_rows import rows_of
from snapferry.orchestrator.jobs import JobRefused, Jobs
from snapferry.orchestrator.recovery import keeper
from snapferry.orchestrator.recovery.collect import as_text, export
from snapferry.orchestrator.recovery.document import Export, InvalidExport, parse_export
from snapferry.orchestrator.recovery.files import read_export, write_file
from snapferry.orchestrator.recovery.keeper import ExportKeeper
from snapferry.orchestrator.recovery.restore import End, import_export, recover
from snapferry.orchestrator.reporting.advice import advise
from snapferry.stores.hashing import digest
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import (
    Expected,
    FreshnessLedger,
    Ledger,
    RunEnd,
    ScheduleLedger,
    ScrubLedger,
    ScrubRun,
    State,
)
from snapferry.workers.messages import (
    GROUP_BATCHES,
    Action,
    JobSpec,
    Limits,
    Prune,
    ScrubPart,
    StoreRef,
    TreeOptions,
    encode_addresses,
)
from snapferry.workers.queues import COPY_QUEUE
from snapferry.workers.reachability.worker_roster import WorkerRoster
from snapferry.workers.settings.environment import Settings

IDS = [digest(b"one"), digest(b"two"), digest(b"three")]
# What a status says of a job that has ended.
SAME = (
    "copied", "present", "objects_total", "snapshots_published", "submitted_at", "ended_at", "error", "cause",
    "continues", "continued_by", "superseded", "snapshots_total", "first_snapshot",
)  # fmt: skip


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return client(redis_url)


@pytest.fixture
def ledger(server: redis.Redis) -> Ledger:
    return Ledger(server, expires_s=3600)


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url))


def spec(job_id: str, **fields: Any) -> JobSpec:
    return JobSpec.of(
        StoreRef(url="file:///a"), StoreRef(url="file:///b"), fields.pop("ids", IDS), job_id=job_id, **fields
    )


def end(ledger: Ledger, job_id: str, state: State = State.DONE, **fields: Any) -> None:
    counts = {
        "objects_total": 5,
        "copied": 3,
        "present": 2,
        "objects_settled": 5,
        "published": 2,
        "unpublished": 1,
    }
    rows = {
        0: ["published", 3, 30, 3, 0, 0, 0, 1700000000.5, ""],
        1: ["failed", 2, 20, 0, 1, 0, 1, 1700000001.5, "ObjectMissing: gone"],
    }
    ledger.advance(job_id, State.PLANNING)
    ledger.advance(
        job_id,
        state,
        **counts,
        kinds="..x",
        reasons=json.dumps({2: "no manifest"}),
        **rows_of(rows),
        **fields,
    )


def fill(ledger: Ledger, jobs: Jobs) -> None:
    """Make jobs of all kinds."""
    ledger.create(spec("done"), schedule="mirror:nightly")
    end(ledger, "done")
    ledger.create(spec("failed"))
    end(ledger, "failed", State.FAILED, error="2 objects failed\x1b[31m", cause="ObjectMissing")
    ledger.create(spec("again", resumes="failed"))
    end(ledger, "again")
    jobs.submit(spec("open", limits=Limits(rate=5)))
    jobs.submit(spec("paused"))
    jobs.pause("paused")
    jobs.limit("paused", {"requests": 9})
    ledger.create(spec("by-schedule"), schedule="mirror:nightly")
    ledger.create(spec("deleting", prune=Prune()))
    ledger.create(spec("leaving"))
    ledger.advance("leaving", State.COPYING)
    ledger.cancel("leaving")


def moved(ledger: Ledger, *, open_only: bool = False) -> Export:
    """Export all, lose all, and return what the file says."""
    text = as_text(export(ledger, open_only=open_only))
    ledger.client.flushall()
    return parse_export(text.encode())


def by_id(found: list[Any]) -> dict[str, End]:
    return {one.job_id: one.end for one in found}


def test_ended_jobs_are_the_same_after_the_loss_of_redis(ledger: Ledger, jobs: Jobs) -> None:
    fill(ledger, jobs)
    names = ["done", "failed", "again"]
    before = {name: ledger.status(name) for name in names}
    rows = {name: jobs.snapshots(name) for name in names}
    receipts = {name: jobs.receipt(name) for name in names}

    document = moved(ledger)
    ends = by_id(import_export(ledger, document))

    assert ends == {
        "done": End.RECORDED, "failed": End.RECORDED, "again": End.RECORDED, "leaving": End.RECORDED,
        "open": End.OPEN, "paused": End.OPEN, "by-schedule": End.OPEN, "deleting": End.OPEN,
    }  # fmt: skip
    for name in names:
        after = ledger.status(name)
        assert after.state is before[name].state
        for part in SAME:
            assert getattr(after, part) == getattr(before[name], part), (name, part)
        assert jobs.snapshots(name) == rows[name]
        assert jobs.receipt(name) == receipts[name] | {"imported": True}
    assert before["failed"].superseded
    assert ledger.status("leaving").state is State.CANCELLED
    assert jobs.schedule("done") == "mirror:nightly"
    assert ledger.open_jobs() == [], "nothing runs by an import"
    assert FreshnessLedger(ledger.client).ended_jobs(10) == [], "nobody is told of an old end"


@pytest.mark.parametrize("fields", [{}, {"bounded": "max_bytes"}])
def test_what_is_advised_for_an_imported_job_is_not_refused(
    ledger: Ledger, jobs: Jobs, fields: dict[str, Any]
) -> None:
    ledger.create(spec("failed"))
    end(
        ledger,
        "failed",
        State.FAILED,
        failed=1,
        cause="ObjectMissing",
        batches_total=1,
        batches_done=1,
        **fields,
    )
    assert advise(ledger.status("failed")).argv == ("snapferry", "retry", "failed")

    import_export(ledger, moved(ledger))

    with pytest.raises(JobRefused, match="snapferry resume failed"):
        jobs.retry("failed")
    assert advise(ledger.status("failed")).argv == ("snapferry", "resume", "failed")
    assert jobs.resume("failed") is not None


def test_an_import_may_be_repeated_and_changes_no_record(ledger: Ledger, jobs: Jobs) -> None:
    fill(ledger, jobs)
    document = moved(ledger)
    ledger.create(spec("done", ids=None))
    import_export(ledger, document)
    before = {name: ledger.client.hgetall(f"snapferry:job:{name}") for name in ledger.job_ids()}

    again = by_id(import_export(ledger, document))

    assert {name: ledger.client.hgetall(f"snapferry:job:{name}") for name in ledger.job_ids()} == before
    assert again["failed"] is End.KNOWN
    assert ledger.status("done").state is State.QUEUED, "a job of that id was submitted meanwhile"


@pytest.mark.parametrize("deleting", [False, True])
def test_open_jobs_are_submitted_under_their_ids_and_once(ledger: Ledger, jobs: Jobs, deleting: bool) -> None:
    fill(ledger, jobs)
    document = moved(ledger, open_only=True)
    assert {job.request.job_id for job in document.jobs} == {
        "open",
        "paused",
        "by-schedule",
        "deleting",
        "leaving",
    }

    began: list[str] = []
    ends = by_id(
        recover(
            jobs,
            import_export(ledger, document),
            deleting=deleting,
            begun=lambda one: began.append(one.job_id),
        )
    )

    assert ends == {
        "open": End.SUBMITTED, "paused": End.SUBMITTED, "by-schedule": End.SCHEDULED, "leaving": End.RECORDED,
        "deleting": End.SUBMITTED if deleting else End.DELETES,
    }  # fmt: skip
    assert began == ["open", "paused", *(["deleting"] if deleting else [])]
    assert ledger.open_jobs() == sorted(began)
    assert (jobs.status("open").limits.rate, jobs.status("paused").limits.requests) == (5, 9)
    assert [jobs.status(name).paused for name in ("open", "paused")] == [False, True]

    again = by_id(recover(jobs, import_export(ledger, document), deleting=deleting))
    assert {again[name] for name in began} == {End.KNOWN}


@pytest.mark.parametrize("batches", [GROUP_BATCHES, 6])
def test_an_open_job_is_cut_as_before_the_loss(ledger: Ledger, jobs: Jobs, batches: int) -> None:
    """Else a batch that a worker had before would count for other objects: a verify would not read those."""
    ledger.create(spec("job", group_batches=batches))
    document = moved(ledger)
    WorkerRoster(ledger.client).announce("worker", [COPY_QUEUE], 1)

    assert by_id(recover(jobs, import_export(ledger, document))) == {"job": End.SUBMITTED}
    assert ledger.spec("job").group_batches == batches


@pytest.mark.parametrize(
    "more",
    [
        {"action": Action.PULL},
        {"action": Action.PULL, "tree": TreeOptions(delete=True)},
        {"prune": Prune(force=True)},
    ],
)
def test_a_job_that_deletes_or_overwrites_is_submitted_on_request_alone(
    ledger: Ledger, jobs: Jobs, more: dict[str, Any]
) -> None:
    ledger.create(spec("job", **more))
    document = moved(ledger)

    assert by_id(recover(jobs, import_export(ledger, document))) == {"job": End.DELETES}
    assert by_id(recover(jobs, import_export(ledger, document), deleting=True)) == {"job": End.SUBMITTED}


def test_a_job_of_everything_whose_snapshots_are_not_in_the_export_is_resumed_by_a_new_listing(
    ledger: Ledger, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.orchestrator.recovery.collect.MOST_ROWS", 2)
    ledger.create(spec("all", ids=None))
    end(ledger, "all", State.FAILED, ids="", snapshots_total=3)
    document = moved(ledger)
    assert document.jobs[0].snapshots is None
    import_export(ledger, document)

    new = jobs.resume("all")

    assert new is not None
    resumed = jobs.spec(new)
    assert resumed is not None
    assert resumed.everything
    assert resumed.resumes == "all"


def test_the_snapshots_of_a_job_of_everything_are_kept(ledger: Ledger, jobs: Jobs) -> None:
    ledger.create(spec("all", ids=None))
    end(ledger, "all", State.FAILED, ids=encode_addresses(IDS), snapshots_total=3, first_snapshot=IDS[0])
    rows = jobs.snapshots("all")
    assert [row.state for row in rows] == ["published", "failed", "failed"]

    import_export(ledger, moved(ledger))

    assert jobs.snapshots("all") == rows
    resumed = jobs.spec(jobs.resume("all") or "")
    assert resumed is not None
    assert resumed.snapshot_ids == IDS[1:]


def test_a_damaged_record_costs_that_job_alone(ledger: Ledger, jobs: Jobs) -> None:
    for name in ("a", "b", "c", "d"):
        ledger.create(spec(name))
    ledger.client.hset("snapferry:job:a", "copied", "many")
    ledger.client.hset("snapferry:job:b", "request", "{")
    ledger.client.delete("snapferry:job:c")

    found = export(ledger)

    assert [job.request.job_id for job in found.jobs] == ["d"]
    assert found.unreadable == 2, "that of c has expired"


def good() -> dict[str, Any]:
    request = spec("job").model_dump(mode="json")
    return {
        "schema": "snapferry.jobs/1",
        "exported_at": 5.0,
        "jobs": [{"request": request, "state": "done", "submitted_at": 1.0}],
        "schedules": [
            {"kind": "mirror", "name": "m", "every": "1d", "since": 1.0},
            {
                "kind": "scrub", "name": "s", "every": "1d", "since": 1.0,
                "scrub": {"store": "file:///b", "shares": 2, "share": 1, "at": "8" + 63 * "0", "cycle": 1,
                          "cycle_at": 1.0, "began_at": 1.0, "verified": {"0": 1.0}},
            },
        ],
    }  # fmt: skip


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "other schema": lambda d: d.update(schema="snapferry.jobs/2"),
    "no schema": lambda d: d.pop("schema"),
    "unknown field": lambda d: d.update(more=1),
    "unknown field of a job": lambda d: d["jobs"][0].update(cancel="1"),
    "unknown field of a request": lambda d: d["jobs"][0]["request"].update(shell="x"),
    "request of another version": lambda d: d["jobs"][0]["request"].update(version=2),
    "id that is a path": lambda d: d["jobs"][0]["request"].update(job_id="../../x"),
    "id that is a pattern": lambda d: d["jobs"][0]["request"].update(job_id="*"),
    "same job twice": lambda d: d["jobs"].append(d["jobs"][0]),
    "unknown state": lambda d: d["jobs"][0].update(state="winning"),
    "unknown counter": lambda d: d["jobs"][0].update(counters={"state": 1}),
    "counter as text": lambda d: d["jobs"][0].update(counters={"copied": "7"}),
    "counter too high": lambda d: d["jobs"][0].update(counters={"copied": 2**64}),
    "counter below 0": lambda d: d["jobs"][0].update(counters={"copied": -1}),
    "time that is none": lambda d: d["jobs"][0].update(submitted_at=1e300),
    "time as text": lambda d: d["jobs"][0].update(submitted_at="soon"),
    "error too long": lambda d: d["jobs"][0].update(error="x" * 20_000),
    "snapshot of another job": lambda d: d["jobs"][0].update(snapshots=[{"id": "0" * 64, "state": "published"}]),
    "snapshot twice": lambda d: d["jobs"][0].update(
        snapshots=[{"id": one, "state": "published"} for one in [*IDS, IDS[0]]]
    ),
    "schedule that is a key": lambda d: d["jobs"][0].update(schedule="mirror:*"),
    "concurrency": lambda d: d["jobs"][0]["request"].update(concurrency=10**9),
    "window": lambda d: d["jobs"][0]["request"].update(window_batches=10**9),
    "name that is a key": lambda d: d["schedules"][0].update(name="a:state"),
    "other kind": lambda d: d["schedules"][0].update(kind="job"),
    "share that is none": lambda d: d["schedules"][1]["scrub"].update(share=2),
    "verified share that is none": lambda d: d["schedules"][1]["scrub"].update(verified={"7": 1.0}),
    "address that is none": lambda d: d["schedules"][1]["scrub"].update(at="x" * 64),
    "not a list": lambda d: d.update(jobs={}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_document_with_anything_odd_is_refused_as_a_whole(name: str) -> None:
    document = good()
    assert len(parse_export(json.dumps(document).encode()).jobs) == 1
    HOSTILE[name](document)

    with pytest.raises(InvalidExport) as refused:
        parse_export(json.dumps(document).encode())

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b'{"schema": NaN}', b"[]"])
def test_a_file_that_is_no_document_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_bytes(text)

    with pytest.raises(InvalidExport):
        read_export(tmp_path / "jobs.json")


def test_nothing_is_waited_for_at_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidExport):
        read_export(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError):
        read_export(tmp_path)


def test_texts_of_an_export_are_safe_for_a_terminal(ledger: Ledger, jobs: Jobs) -> None:
    document = good()
    document["jobs"][0]["error"] = "\x1b[2J\x00gone"
    document["jobs"][0]["snapshots"] = [{"id": one, "state": "failed", "reason": "\x1b[2J"} for one in IDS]

    import_export(ledger, parse_export(json.dumps(document).encode()))

    assert "\x1b" not in jobs.status("job").error
    assert not any("\x1b" in row.reason for row in jobs.snapshots("job"))


def scheduled(server: redis.Redis) -> None:
    """A mirror that succeeded, and a scrub that has read one of its two shares."""
    fresh = FreshnessLedger(server)
    fresh.expect(
        [Expected("mirror", "nightly", "1h"), Expected("scrub", "backup", "1d", 7200.0)], replace=True
    )
    for kind, name in (("mirror", "nightly"), ("scrub", "backup")):
        server.hset(f"snapferry:{kind}:{name}", "since", 1_600_000_000.0)
    fresh.settle(["none"], untold={}, mirrors={"nightly": 1_700_000_000.0}, stores={})
    ScheduleLedger(server, "mirror").started("nightly", "done")
    scrubs, part = ScrubLedger(server), ScrubPart(name="backup", shares=2, share=0)
    scrubs.begin_cycle("file:///b", part)
    scrubs.settle(
        ScrubRun(
            "run", "file:///b", part, part.first, RunEnd.READ, part.next.first, 3, 1, 1_650_000_000.0, True
        )
    )


def test_schedules_are_as_late_and_as_far_as_before(ledger: Ledger, server: redis.Redis) -> None:
    scheduled(server)
    fresh = FreshnessLedger(server)
    before = {
        one.expected.key: (one.success_at, one.late_at, one.late, one.expected) for one in fresh.freshness()
    }
    state = ScrubLedger(server).state("backup")
    assert before["mirror:nightly"][2], "it is late"
    document = moved(ledger)
    # A scheduler, or an orchestrator, has begun anew with what its file says.
    fresh.expect(
        [Expected("mirror", "nightly", "1h"), Expected("scrub", "backup", "1d", 7200.0)], replace=True
    )
    ScrubLedger(server).begin_cycle("file:///b", ScrubPart(name="backup", shares=2, share=0))
    assert not any(one.late for one in fresh.freshness())

    import_export(ledger, document)
    import_export(ledger, document)

    assert {
        one.expected.key: (one.success_at, one.late_at, one.late, one.expected) for one in fresh.freshness()
    } == before
    assert ScrubLedger(server).state("backup") == state
    part = ScrubPart(name="backup", shares=2, share=1)
    assert ScrubLedger(server).begin_cycle("file:///b", part) is None
    assert ScheduleLedger(server, "mirror").record("nightly").job_id == "done"
    now = time.time()
    assert ScrubLedger(server).settle(
        ScrubRun("run2", "file:///b", part, part.first, RunEnd.READ, part.next.first, 0, 0, now, True)
    )


def test_what_is_newer_than_the_export_stays(ledger: Ledger, server: redis.Redis) -> None:
    scheduled(server)
    text = as_text(export(ledger))
    FreshnessLedger(server).settle(["none"], untold={}, mirrors={"nightly": 1_750_000_000.0}, stores={})
    ScheduleLedger(server, "mirror").started("nightly", "newer")
    part = ScrubPart(name="backup", shares=2, share=1)
    ScrubLedger(server).settle(
        ScrubRun(
            "run2", "file:///b", part, part.first, RunEnd.READ, part.next.first, 0, 0, 1_740_000_000.0, True
        )
    )
    state = ScrubLedger(server).state("backup")

    import_export(ledger, parse_export(text.encode()))

    assert ScrubLedger(server).state("backup") == state
    assert ScheduleLedger(server, "mirror").record("nightly").job_id == "newer"
    found = {one.expected.key: one.success_at for one in FreshnessLedger(server).freshness()}
    assert found["mirror:nightly"] == 1_750_000_000.0


def test_a_file_is_kept_up_to_date_and_what_redis_lost_stays_beside_it(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "jobs.json"
    ledger.create(spec("open"))
    ExportKeeper(str(file)).round(ledger)
    kept = ExportKeeper(str(file))
    kept.round(ledger)
    assert [job.request.job_id for job in read_export(file).jobs] == ["open"]
    assert file.stat().st_mode & 0o777 == 0o600

    ledger.client.flushall()
    kept.round(ledger)
    kept.round(ledger)

    (lost,) = tmp_path.glob("jobs.json.*.lost")
    assert [job.request.job_id for job in read_export(lost).jobs] == ["open"]
    assert read_export(file).jobs == ()
    assert str(lost) in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, lost.name])


def test_a_file_that_is_no_export_is_not_replaced(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text("a letter")

    ExportKeeper(str(file)).round(ledger)

    (aside,) = tmp_path.glob("jobs.json.*.lost")
    assert aside.read_text() == "a letter"
    assert read_export(file).jobs == ()


def test_a_redis_that_loses_its_data_again_and_again_does_not_fill_the_disk(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_KEPT", 2)
    file = tmp_path / "jobs.json"
    for number in range(5):
        ledger.create(spec(f"job{number}"))
        monkeypatch.setattr(time, "strftime", lambda *_, number=number: str(number))
        ExportKeeper(str(file)).round(ledger)
        ledger.client.flushall()

    assert len(list(tmp_path.glob("*.lost"))) == 2
    assert [job.request.job_id for job in read_export(file).jobs] == ["job2"], "the third one stays as it is"


def test_an_error_of_the_disk_is_logged_and_leaves_the_file(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    ExportKeeper(str(folder / "jobs.json")).round(ledger)

    assert "No such file or directory" in caplog.text
    write_file(tmp_path / "x", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
