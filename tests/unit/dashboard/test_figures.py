"""
Every figure of the pages against the ledger, in every state of a job.

What is expected is computed from the fields of the record in Redis, not by the code that the pages use.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.dashboard.views.workers import workers_page
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.stores.text.format import size
from snapferry.workers.ledger import Ledger, State

from .states import SIZE, STATES, Build
from .support import Shown, page

FINAL = {"done", "failed", "cancelled"}
STOPPED = {"failed", "cancelled"}

# What is not known.
DASH = "\N{EN DASH}"


class Record:
    """The record of a job as it is in Redis."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        key = f"snapferry:job:{job_id}"
        self.job_id = job_id
        self.fields = {str(name): str(value) for name, value in ledger.client.hgetall(key).items()}
        self.running = [tuple(map(int, text.split())) for text in ledger.client.hvals(f"{key}:running")]
        self.moves = [text.split() for text in ledger.client.hvals(f"{key}:moves")]
        self.holders = [text for text in ledger.client.hvals(f"{key}:holders") if text]

    def __getitem__(self, name: str) -> int:
        return int(self.fields.get(name, 0))

    @property
    def state(self) -> str:
        return self.fields["state"]

    @property
    def grows(self) -> bool:
        """Whether the plan is not complete, so its totals may become larger."""
        return (
            self["snapshots_planned"] < self["snapshots_total"]
            if "snapshots_planned" in self.fields
            else False
        )

    @property
    def of(self) -> str:
        """What stands before a total of the plan."""
        return "of at least" if self.grows else "of"

    @property
    def has_share(self) -> bool:
        """Whether pages show how much of the job is done."""
        return bool(self["objects_total"]) and self.fields.get("dry_run") != "1" and not self.grows

    @property
    def objects(self) -> dict[str, int]:
        inside = sum(objects for objects, _ in self.running)
        counts = {name: self[name] for name in ("copied", "present", "failed")}
        unknown = self["objects_settled"] - sum(counts.values()) + inside
        return counts | {"running": unknown, "left": self["objects_total"] - sum(counts.values()) - unknown}

    @property
    def percent(self) -> int:
        counts, total = self.objects, self["objects_total"]
        settled = 100 * (total - counts["left"]) // total
        if self.state in STOPPED:
            return min(99, 100 * (counts["copied"] + counts["present"]) // total)
        return min(99, settled) if counts["failed"] else settled

    @property
    def moved(self) -> int:
        return self["bytes_copied"] + sum(int(each[4]) for each in self.moves)


@pytest.fixture(params=list(STATES.values()), ids=list(STATES))
def state(request: pytest.FixtureRequest, ledger: Ledger) -> str:
    build: Build = request.param
    build(ledger)
    return build.__name__


@pytest.fixture
def records(ledger: Ledger, state: str) -> list[Record]:
    return [Record(ledger, job_id) for job_id in ledger.job_ids()]


def counted(text: str) -> int:
    """Return the number that *text* begins with."""
    return int(text.partition(" ")[0].replace(",", ""))


def amount(text: str) -> float:
    """Return bytes from a text such as "1.5 MB/s"; 0.0 for a dash."""
    found = re.match(r"([\d.]+) (B|kB|MB|GB)", text)
    return float(found[1]) * 1000 ** ["B", "kB", "MB", "GB"].index(found[2]) if found else 0.0


def is_superseded(record: Record, records: Mapping[str, Record]) -> bool:
    if record.state == "failed" and record.fields.get("schedule"):
        # The state that has one is that of a mirror with a later success.
        return True
    if record.state != "failed" or not (further := records.get(record.fields.get("continued_by", ""))):
        return False
    return further.state == "done" or is_superseded(further, records)


def is_dismissed(record: Record, records: Mapping[str, Record]) -> bool:
    if record.state != "failed":
        return False
    further = records.get(record.fields.get("continued_by", ""))
    return "dismissed_at" in record.fields or (further is not None and is_dismissed(further, records))


def test_the_page_of_a_job_shows_what_the_ledger_has(sources: Sources, records: list[Record]) -> None:
    for record in records:
        shown = Shown(page("job.html", **job_page(sources, record.job_id)))
        figures, counts = shown.figures, record.objects
        open_ = record.state not in FINAL
        settled = sum(counts.values()) - counts["left"]

        assert figures["Objects"] == f"{settled} {record.of} {record['objects_total']}"
        assert figures["Bytes"] == f"{size(settled * SIZE)} {record.of} {size(record['bytes_total'])}"
        there = record["published"] + record["trusted"]
        failed = f", {record['unpublished']} failed" if record["unpublished"] else ""
        assert figures["Snapshots"] == f"{there} of {record['snapshots_total']}{failed}"
        batches = f"{record['batches_done']} {record.of} {record['batches_total']}"
        if open_:
            at_work = len(record.holders)
            queued = record["batches_handed"] - record["batches_done"] - at_work
            batches += f", {at_work} running, {queued} queued"
        assert figures["Batches"] == batches

        if record.has_share:
            legend = [int(line.split()[0]) for line in shown.lists["legend"]]
            assert sum(legend) == record["objects_total"]
            expected = [counts[name] for name in ("copied", "present", "failed", "running", "left")]
            if "action" in record.fields:
                del expected[0]
            if not open_ and not counts["running"]:
                del expected[-2]
            assert legend == expected
            (percent, parts) = shown.bars[0]
            assert percent == record.percent
            assert parts == pytest.approx(
                {
                    name: 100 * count / record["objects_total"]
                    for name, count in counts.items()
                    if count and name != "left"
                },
                abs=0.01,
            )
        else:
            assert shown.bars == []


def test_throughput_is_what_was_moved_and_time_left_is_of_jobs_that_run(
    sources: Sources, ledger: Ledger, records: list[Record], state: str
) -> None:
    for at in (time.time() - 1.0, time.time()):
        # Nothing moves between the two samples.
        sources.throughput.add(sources.jobs.open(), at)
    for record in records:
        figures = Shown(page("job.html", **job_page(sources, record.job_id))).figures
        began, ended = (float(record.fields.get(name, 0)) for name in ("started_at", "ended_at"))
        mean = record.moved / ((ended or time.time()) - began) if began else 0.0
        shown = figures["Throughput"]
        if record.state in FINAL:
            assert amount(shown) == pytest.approx(mean, rel=0.1), shown
            assert "Time left" not in figures
        else:
            assert shown.startswith(DASH), "nothing moved meanwhile"
            assert amount(shown.partition(f"{DASH} ")[2]) == pytest.approx(mean, rel=0.1), shown
            rests = state.startswith("paused") or state in ("cancelling", "hanging")
            runs = record.holders and not rests and not record.grows and record["batches_done"]
            assert (figures["Time left"].split()[0] != DASH) == bool(runs), figures["Time left"]


def test_bytes_moved_duration_and_failures_are_those_of_the_ledger(
    sources: Sources, records: list[Record]
) -> None:
    for record in records:
        shown = Shown(page("job.html", **job_page(sources, record.job_id)))
        figures = shown.figures
        # A verify reads; every other action of these states copies.
        assert figures["Read" if "action" in record.fields else "Copied"] == size(record.moved)
        began, ended = (float(record.fields.get(name, 0)) for name in ("started_at", "ended_at"))
        if record.state in FINAL:
            assert figures["Duration"].startswith(duration(ended - began if began else 0.0))
        else:
            assert "Duration" not in figures
        assert figures.get("Healed", "0").partition(" ")[0] == str(record["healed"])
        classes = [int(line.partition(" ")[0]) for line in shown.lists.get("classes", [])]
        assert sum(classes) == record["failed"]
        assert (f"Failed objects {record['failed']}" in shown.text) == bool(record["failed"])
        assert f"Snapshots {record['snapshots_total']}" in shown.text


def test_states_sizes_and_throughput_of_the_list_are_those_of_the_ledger(
    sources: Sources, records: list[Record]
) -> None:
    by_id = {record.job_id: record for record in records}
    states = Counter(
        "superseded"
        if is_superseded(record, by_id)
        else "dismissed"
        if is_dismissed(record, by_id)
        else record.state
        for record in records
    )
    still_open = sum(
        count for name, count in states.items() if name not in {*FINAL, "superseded", "dismissed"}
    )
    found = jobs_page(sources, {})
    shown = Shown(page("jobs.html", **found))

    counts = {
        name: counted(count) for name, _, count in (link.text.rpartition(" ") for link in found["choices"])
    }
    assert counts == {"all": len(records), "open": still_open} | states
    for name, count in counts.items():
        given = {} if name == "all" else {"state": name}
        assert len(Shown(page("jobs.html", **jobs_page(sources, given))).lines) == count, name
    for record in records:
        row = shown.lines[record.job_id[:8]]
        if record.has_share:
            assert row["Progress"].partition(" objects, ")[2].startswith(size(record["bytes_total"]))
        began, ended = (float(record.fields.get(name, 0)) for name in ("started_at", "ended_at"))
        mean = record.moved / (ended - began) if record.state in FINAL and began else 0.0
        assert amount(row["Throughput"]) == pytest.approx(mean, rel=0.1)
        assert (row["Throughput"] == DASH) == (mean == 0.0)


def test_the_list_shows_what_the_ledger_has(
    sources: Sources, ledger: Ledger, records: list[Record], state: str
) -> None:
    sources.roster.handle({"type": "worker-heartbeat", "hostname": "orchestrator@one", "freq": 2})
    shown = Shown(page("jobs.html", **jobs_page(sources, {})))
    by_id = {record.job_id: record for record in records}
    over = {record.job_id for record in records if is_superseded(record, by_id)}
    given_up = {record.job_id for record in records if is_dismissed(record, by_id)}

    figures = shown.figures
    assert counted(figures["Open jobs"]) == sum(record.state not in FINAL for record in records)
    assert counted(figures["Failed jobs"]) == sum(record.state == "failed" for record in records) - len(
        over | given_up
    )
    others = [f"{len(over)} superseded" if over else "", f"{len(given_up)} dismissed" if given_up else ""]
    assert figures["Failed jobs"].partition(" ")[2] == ", ".join(filter(None, others))
    assert counted(figures["Workers online"]) == ledger.client.hlen("snapferry:workers")
    assert counted(figures["Orchestrators online"]) == 1
    assert figures["Throughput"] == DASH
    assert len(shown.lines) == len(records)
    for record in records:
        row, counts = shown.lines[record.job_id[:8]], record.objects
        assert row["Snapshots"] == f"{record['published'] + record['trusted']} / {record['snapshots_total']}"
        assert row["Failed objects"] == str(record["failed"])
        expected = "superseded" if record.job_id in over else record.state
        assert ("dismissed" in row["State"]) == (record.job_id in given_up)
        assert row["State"].split()[0].rstrip(",") == expected
        assert ("paused" in row["State"]) == state.startswith("paused")
        assert ("still planning" in row["State"]) == (record.grows and record.state not in FINAL)
        if record.has_share:
            settled = sum(counts.values()) - counts["left"]
            assert f"{record.percent} % {settled} of {record['objects_total']} objects" in row["Progress"]
    for _, parts in shown.bars:
        assert sum(parts.values()) <= 100.01


def test_what_is_wrong_is_said_first_with_what_to_do(
    sources: Sources, ledger: Ledger, records: list[Record], state: str
) -> None:
    sources.roster.handle({"type": "worker-heartbeat", "hostname": "orchestrator@one", "freq": 2})
    found = jobs_page(sources, {})["attentions"]
    commands = [one.advice.command for one in found]

    expected = {
        "no_workers": ["snapferry worker"],
        "workers_busy": ["snapferry worker"],
        "hanging": ["snapferry doctor --from file:///srv/photos --to s3://backup/photos"],
        "all_failed": ["snapferry retry job"],
        "one_failed": ["snapferry retry job"],
        "unpublished": ["snapferry resume job"],
        "healed": ["snapferry retry job"],
        "retried": [],
        "retried_in_vain": ["snapferry resume retry-failed"],
        "waiting": ["snapferry doctor --from file:///srv/photos --to s3://backup/photos"],
    }
    assert commands == expected.get(state, [])


def test_the_workers_page_shows_who_is_there(sources: Sources, ledger: Ledger, records: list[Record]) -> None:
    sources.roster.handle({"type": "worker-heartbeat", "hostname": "orchestrator@one", "freq": 2})
    found = workers_page(sources)
    page("workers.html", **found)

    held = [holder for record in records if record.state not in FINAL for holder in record.holders]
    assert [line.node.name for line in found["orchestrators"]] == ["orchestrator@one"]
    assert sum(line.batches for line in found["workers"]) == len(held)
    announced = ledger.client.hlen("snapferry:workers")
    assert sum(line.node.online for line in found["workers"]) == announced


def test_settings_and_times_are_those_of_the_job(sources: Sources, records: list[Record]) -> None:
    for record in records:
        shown = Shown(page("job.html", zone="Asia/Tokyo", **job_page(sources, record.job_id)))
        assert shown.figures["Priority"] == record.fields["priority"]
        assert shown.figures["Queue"] == (record.fields["queue"] or "default")
        for name, field in (("Submitted", "submitted_at"), ("Started", "started_at"), ("Ended", "ended_at")):
            at = float(record.fields.get(field, 0))
            if at:
                # Tokyo is nine hours ahead, and never changes its clocks.
                local = time.strftime("%Y-%m-%d %H:%M:%S JST", time.gmtime(at + 9 * 3600))
                assert shown.figures[name].startswith(local)
            else:
                assert name not in shown.figures


def test_a_chain_is_shown_from_each_of_its_jobs(sources: Sources, ledger: Ledger) -> None:
    STATES["superseded"](ledger)
    for job_id in ("job", "retry-failed", "resume-done"):
        found: list[Any] = job_page(sources, job_id)["chain"]
        assert [(one.job_id, one.state, one.here) for one in found] == [
            ("job", "superseded", job_id == "job"),
            ("retry-failed", "superseded", job_id == "retry-failed"),
            ("resume-done", "done", job_id == "resume-done"),
        ]
    assert job_page(sources, "job")["advice"].sentence == ""
    assert ledger.client.hget("snapferry:job:job", "state") == State.FAILED
