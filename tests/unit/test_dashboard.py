"""The dashboard's pages and parts: hostile text, who may look, speeds, heartbeats. No server, no store."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pytest

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.dashboard import lookup, server, worker_roster
from snapferry.orchestrator.dashboard.access import allowed_hosts, host_of, is_loopback, knows_password
from snapferry.orchestrator.dashboard.chart import HEIGHT, WIDTH, chart
from snapferry.orchestrator.dashboard.guarded import Page
from snapferry.orchestrator.dashboard.pages import LONGEST, clip, shown
from snapferry.orchestrator.dashboard.throughput_history import (
    JOBS_KEPT,
    SAMPLES_KEPT,
    Throughput,
    ThroughputHistory,
)
from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page, progress
from snapferry.orchestrator.dashboard.views.schedules import schedules_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.dashboard.views.workers import workers_page
from snapferry.orchestrator.reporting.failures import DeadLetter, without_places
from snapferry.stores.address import Address
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import (
    FailedObject,
    JobStatus,
    Ledger,
    RunEnd,
    ScheduleLedger,
    ScrubLedger,
    ScrubRun,
    State,
)
from snapferry.workers.messages import (
    Action,
    BatchMessage,
    JobSpec,
    MirrorMessage,
    ScrubMessage,
    ScrubPart,
    StoreRef,
    encode_addresses,
)
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.settings.environment import InvalidSettings, Settings, dashboard_login

from .dashboard.support import page, sources_of

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "{{ 7654 * 1234 }}{% raw %}",
    "javascript:alert(1)",
    "left\u202eright\u2066\u200f",
    "bell\x07 escape\x1b[31m null\x00 line\nfeed\r\t",
    "lone \udcff surrogate \ud800",
    "\ufeff\u00ad\u2028\u2029\U000e0041",
    "é" * 1_000_000,
    "&amp; &#x3c;",
]

# What no page may hold as it is: controls but for the line feed of the templates, marks that turn text around.
UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


class Seen(HTMLParser):
    """The tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def sources(redis_url: str) -> Sources:
    return sources_of(redis_url, flower_url="http://flower")


@pytest.fixture
def ledger(sources: Sources) -> Ledger:
    return sources.jobs._ledger


def request(job_id: str, snapshots: int = 1, source: str = "/a") -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses(digest(b"%d" % number) for number in range(snapshots)),
        source=StoreRef(url=source),
        destination=StoreRef(url="/b"),
        batch_objects=10,
        batch_bytes=100,
    )


def copying(ledger: Ledger, job_id: str = "job", *, objects: int = 10, source: str = "/a") -> BatchMessage:
    """Make a job of one batch of *objects* objects of 10 bytes each; return the batch."""
    ledger.create(request(job_id, source=source))
    ledger.advance(job_id, State.PLANNING)
    ledger.advance(
        job_id,
        State.COPYING,
        objects_total=objects,
        bytes_total=10 * objects,
        batches_total=1,
        batches_handed=1,
    )
    return BatchMessage(
        job_id=job_id,
        series="plan",
        number=0,
        source=StoreRef(url=source),
        destination=StoreRef(url="/b"),
        addresses=encode_addresses(digest(b"object %d" % number) for number in range(objects)),
        sizes=(10,) * objects,
        positions=(0,),
    )


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_text_from_elsewhere_is_made_visible_cut_and_escaped_on_every_page(
    sources: Sources, ledger: Ledger, text: str
) -> None:
    batch = copying(ledger, source="/a" + text.encode("utf-8", "replace").decode()[:8000])
    ledger.begin(batch, "somebody@" + text.encode("utf-8", "replace").decode())
    known = FailedObject(Failure(Address(batch.addresses), text, text, text, transient=False), 1, text)
    letter = DeadLetter(digest(b"x"), 10, known, [(digest(b"s"), text)] * 30, 30)
    sources.lookup.found = lookup.Found([lookup.document(letter)] * 25, 25)  # type: ignore[attr-defined]
    failures = [Failure(address, text[:99], "/a", text[:99], transient=False) for address in batch.objects()]
    readable = [
        Failure(one.address, one.error.encode("utf-8", "replace").decode(), "/a", "", transient=False)
        for one in failures
    ]
    ledger.account(batch, BatchOutcome(failures=readable))
    sources.roster.handle({"type": "worker-heartbeat", "hostname": text, "sw_ident": text, "sw_ver": text})

    readable_text = text.encode("utf-8", "replace").decode()
    hostile = StoreRef(url=f"/{readable_text[:999]}")
    schedule(ledger, "m", MirrorMessage(name="m", source=hostile, destination=StoreRef(url="/b")))
    ScheduleLedger(ledger.client, "mirror").skipped("m", readable_text)

    pages = [
        page("schedules.html", **schedules_page(sources)),
        page("jobs.html", **jobs_page(sources, {})),
        page("job.html", **job_page(sources, "job")),
        page("workers.html", **workers_page(sources)),
        page("problem.html", title=text, advice=text, refresh_s=0),
    ]

    plain = [
        page("jobs.html", **jobs_page(sources, {}) | {"lines": []}),
        page("problem.html", title="", advice="x", refresh_s=0),
    ]
    allowed = {tag for one in plain for tag in Seen(one).tags} | {
        "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "rect", "section", "h2", "ul", "li", "strong",
        "br", "p", "bdi", "div", "code", "small", "dl", "dt", "dd", "span", "time",
    }  # fmt: skip
    for one in pages:
        one.encode()
        assert not UNFIT.search(one)
        assert len(one) < 1_000_000
        seen = Seen(one)
        assert set(seen.tags) <= allowed
        assert seen.tags.count("script") == 2
        assert seen.tags.count("img") == 1
        assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "style"]
        assert not [
            value for name, value in seen.attributes if name == "href" and "javascript:" in (value or "")
        ]
        assert "9445036" not in seen.text


def test_the_text_stays_readable() -> None:
    assert shown("plain/päth with spaces") == "plain/päth with spaces"
    assert shown("a\u202eb\n\x1b") == "a\\u202eb\\n\\x1b"
    assert shown("\ud800") == "\\ud800"
    assert shown(7) == "7"


def test_long_text_loses_its_middle_and_says_how_long_it_was() -> None:
    text = "begin" + "-" * 10_000 + "end"

    cut = clip(text)

    assert cut.startswith("begin")
    assert "end (10,008 characters)" in cut
    assert len(cut) < LONGEST + 40
    assert clip("x" * LONGEST) == "x" * LONGEST


def test_a_value_that_a_template_lacks_is_an_error_and_not_an_empty_place() -> None:
    with pytest.raises(jinja2.UndefinedError):
        page("problem.html", title="x", refresh_s=0)


def texts(folder: str) -> dict[str, str]:
    """Return the files of a folder of the dashboard and its subfolders: name -> text."""
    root = Path(str(files("snapferry.orchestrator.dashboard"))) / folder
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def pages_of(kind: type[Page]) -> Iterator[type[Page]]:
    for one in kind.__subclasses__():
        yield from (one, *pages_of(one))


def test_every_template_and_file_that_is_named_is_in_the_package() -> None:
    templates, static_files = texts("templates"), set(texts("static"))
    named = {one.template for one in pages_of(Page) if hasattr(one, "template")}
    for source in templates.values():
        named |= set(re.findall(r'{% (?:extends|import|include) "([^"]+)"', source))

    assert named | {"problem.html"} == set(templates)
    assert {
        name for source in templates.values() for name in re.findall(r"static\('([^']+)'\)", source)
    } == static_files


def test_no_template_marks_anything_as_safe_or_reaches_elsewhere() -> None:
    for name, found in (texts("templates") | texts("static")).items():
        text = found.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\|\s*safe|autoescape|Markup|https?://|@import|innerHTML|\bstyle=", text), name


@pytest.mark.parametrize(
    ("settled", "size_bytes", "percent"),
    [(0, 0, 0), (5, 50, 50), (999, 9_999, 99), (1000, 9_999, 99), (999, 10_000, 99), (1000, 10_000, 100)],
)
def test_progress_says_hundred_only_if_nothing_is_left(
    sources: Sources, ledger: Ledger, settled: int, size_bytes: int, percent: int
) -> None:
    copying(ledger)
    total = 1000 if settled > 10 else 10
    ledger.set_fields(
        "job", objects_total=total, bytes_total=10 * total, objects_settled=settled, bytes_settled=size_bytes
    )

    found = progress(sources.jobs.status("job"))

    assert found is not None
    assert found.percent == percent
    assert sum(length for _, length in found.parts) == pytest.approx(percent, abs=1)


def test_the_bar_is_as_long_as_its_number_says(sources: Sources, ledger: Ledger) -> None:
    copying(ledger)

    def bar(settled: int, size_bytes: int) -> dict[str, float]:
        ledger.set_fields("job", objects_total=10, bytes_total=100, objects_settled=settled)
        ledger.set_fields("job", bytes_settled=size_bytes, copied=settled - 1 if settled else 0)
        found = progress(sources.jobs.status("job"))
        assert found is not None
        assert sum(length for _, length in found.parts) == pytest.approx(found.percent)
        return dict(found.parts)

    # One large object that is half copied.
    assert bar(0, 50) == {"running": 50.0}
    # All but a large object.
    assert bar(9, 20) == pytest.approx({"copied": 20 * 8 / 9, "running": 20 / 9})


def test_jobs_are_turned_in_pages_and_chosen_by_state(sources: Sources, ledger: Ledger) -> None:
    for number in range(120):
        ledger.create(request(f"job-{number:03}"))
    for number in range(0, 120, 4):
        ledger.cancel(f"job-{number:03}")

    first, third = jobs_page(sources, {}), jobs_page(sources, {}, page=3)
    chosen = jobs_page(sources, {"state": "cancelled"})

    assert [line.status.job_id for line in first["lines"]][:2] == ["job-119", "job-118"]
    assert (first["pages"].newer, first["pages"].older) == ("", "/?page=2")
    assert [line.status.job_id for line in third["lines"]][-1] == "job-000"
    assert (third["pages"].newer, third["pages"].older) == ("/?page=2", "")
    assert (third["pages"].first, third["pages"].last, third["pages"].total) == (101, 120, 120)
    assert {line.state for line in chosen["lines"]} == {"cancelled"}
    assert chosen["pages"].total == 30
    assert [link.text for link in first["choices"]] == ["all 120", "open 90", "queued 90", "cancelled 30"]
    assert [link.text for link in chosen["choices"] if link.current] == ["cancelled 30"]
    assert jobs_page(sources, {"state": "open"})["pages"].total == 90
    assert jobs_page(sources, {"state": "<nonsense>"})["pages"].total == 120
    assert jobs_page(sources, {}, page=10**6)["pages"].total == 120
    assert page("jobs.html", **third).count("<tr") == 21


def test_a_job_that_another_version_submitted_is_shown_as_far_as_it_is_understood(
    sources: Sources, ledger: Ledger
) -> None:
    copying(ledger)
    ledger._redis.hset("snapferry:job:job", "request", '{"version": 99}')

    values = job_page(sources, "job")
    found = page("job.html", **values)

    assert values["snapshots"]["problem"]
    assert values["snapshots"]["problem"] in found
    assert "0 %" in found


def test_a_failed_file_is_shown_by_its_path_alone(sources: Sources, ledger: Ledger) -> None:
    """Its address is the digest of its path: no object and no snapshot has that."""
    batch = copying(ledger, source="/a", objects=1)
    (file,) = batch.objects()
    known = FailedObject(Failure(file, "StoreFull", "/a", "full", transient=False), 1, "w")
    letters = [DeadLetter(file, 10, known, [(digest(b"walk"), "./f")], 1, path) for path in ("./f", "")]
    ledger.begin(batch, "somebody@w")
    ledger.account(batch, BatchOutcome(failures=[known.failure]))

    shown = []
    for letter in letters:
        sources.lookup.found = lookup.Found([lookup.document(letter)] * 25, 25)  # type: ignore[attr-defined]
        shown.append(page("job.html", **job_page(sources, "job")))

    assert all("full" in one for one in shown)
    assert [digest(b"walk") in one for one in shown] == [False, True]
    assert [f'whole">{file}' in one for one in shown] == [False, True]


def test_without_places_a_failed_file_is_known_by_the_path_that_its_error_tells(ledger: Ledger) -> None:
    """Its address is the digest of that path, which may have a colon itself."""
    batch = copying(ledger, objects=2)
    details = ["object 0: full: 0 bytes left", "object 0: is: gone"]
    told = [
        Failure(address, "StoreFull", "/a", detail, transient=False)
        for address, detail in zip(batch.objects(), details, strict=True)
    ]
    ledger.account(batch, BatchOutcome(failures=told))

    assert {letter.address: letter.path for letter in without_places(ledger, "job")} == {
        told[0].address: "object 0",
        told[1].address: "",
    }


def test_without_places_what_the_ledger_knows_of_failures_is_shown(sources: Sources, ledger: Ledger) -> None:
    batch = copying(ledger, objects=60)
    failures = [
        Failure(address, "ObjectMissing", "/a", "gone", transient=False) for address in batch.objects()
    ]
    ledger.account(batch, BatchOutcome(failures=failures), worker="worker@host")
    sources.lookup.found = lookup.Found([], problem="file:///a: no such store")  # type: ignore[attr-defined]

    first, last = (job_page(sources, "job", failures=number)["failures"] for number in (1, 3))
    beyond = job_page(sources, "job", failures=99)["failures"]

    assert (first["total"], first["classes"]) == (60, [("ObjectMissing", 60)])
    assert [row["address"] for row in first["rows"]] == list(batch.objects())[:25]
    assert [row["address"] for row in last["rows"]] == list(batch.objects())[50:]
    assert beyond["rows"] == last["rows"]
    assert [note.partition(": ")[2] for note in first["notes"]] == ["file:///a: no such store"]
    assert last["pages"].newer == "/jobs/job?failures=2#failures"
    found = page("job.html", **job_page(sources, "job"))
    assert "no such store" in found
    assert "tried 1 time" in found


@pytest.mark.parametrize("state", [State.DONE, State.COPYING])
def test_a_verify_is_shown_in_its_own_words_with_its_one_store(
    sources: Sources, ledger: Ledger, state: State
) -> None:
    job = request("job").model_copy(update={"action": Action.VERIFY, "destination": StoreRef(url="/a")})
    ledger.create(job)
    row = ["checked", 10, 100, 0, 4, 0, 0, 1.0, ""]
    ledger.record_group("job", 0, {0: row})
    counts = {"objects_total": 10, "objects_settled": 4, "present": 4, "bytes_copied": 40, "published": 1}
    ledger.advance("job", state, kinds=".", bounded="max_bytes", snapshots_total=1, **counts)

    listed = Seen(page("jobs.html", **jobs_page(sources, {}))).text
    shown = Seen(page("job.html", **job_page(sources, "job"))).text
    assert "verify" in listed
    assert "→" not in listed
    assert "verify" in shown
    assert "→" not in shown
    assert "4 intact" in shown
    assert "copied" not in shown.lower()
    assert "checked" in shown
    assert ("--max-bytes" in shown) == (state is State.DONE)


def test_the_workers_at_a_job_are_listed_with_their_batches(sources: Sources, ledger: Ledger) -> None:
    batch = copying(ledger)
    ledger.begin(batch, "me#1@worker@host")
    ledger.progress(batch, "me#1@worker@host", objects=3, size_bytes=30)

    (running,) = sources.jobs.running("job")
    values = job_page(sources, "job")
    (line,) = workers_page(sources)["workers"]

    assert (running.name, running.worker, running.objects, running.size_bytes) == (
        "plan:0",
        "worker@host",
        3,
        30,
    )
    assert [(worker.node.name, worker.batches) for worker in values["workers"]] == [("worker@host", 1)]
    assert (values["batches"]["running"], values["batches"]["queued"]) == (1, 0)
    assert (line.node.name, line.heartbeat, line.jobs) == ("worker@host", None, (("job", "/jobs/job"),))
    assert "no heartbeat yet" in page("workers.html", **workers_page(sources))
    ledger.release(batch, "me#1@worker@host")
    assert list(sources.jobs.running()) == []


def schedule(ledger: Ledger, entry: str, message: MirrorMessage | ScrubMessage) -> None:
    """Put an entry into the schedule, as RedBeat does."""
    key = f"snapferry:beat:{entry}"
    ledger.client.zadd("snapferry:beat::schedule", {key: time.time() + 3600})
    ledger.client.hset(key, "definition", json.dumps({"args": [message.model_dump(mode="json")]}))


def test_mirrors_and_scrubs_are_listed_with_their_runs(sources: Sources, ledger: Ledger) -> None:
    assert "No mirrors" in page("schedules.html", **schedules_page(sources))
    copying(ledger)
    schedule(ledger, "m", MirrorMessage(name="m", source=StoreRef(url="/a"), destination=StoreRef(url="/b")))
    scrub = ScrubMessage(name="s", store=StoreRef(url="/a"), shares=2, interval=86400)
    schedule(ledger, "scrub:s", scrub)
    ScheduleLedger(ledger.client, "mirror").started("m", "job")
    before = schedules_page(sources)["scrubs"][0]
    scrubs, part = ScrubLedger(ledger.client), ScrubPart(name="s", shares=2, share=0)
    scrubs.begin_cycle("file:///a", part)
    fresh = schedules_page(sources)["scrubs"][0]
    ledger.client.hset("snapferry:scrub:s:state", "began_at", time.time() - 4 * 86400)
    scrubs.settle(
        ScrubRun(
            "j", "file:///a", part, part.first, RunEnd.READ, part.next.first, 2, 0, time.time(), tried=True
        )
    )

    values = schedules_page(sources)

    (mirror,), (late,) = values["mirrors"], values["scrubs"]
    assert (mirror.run.name, mirror.run.href, mirror.run.state) == ("m", "/jobs/job", "copying")
    assert (mirror.source, mirror.destination) == ("/a", "/b")
    assert (before.oldest, before.findings, before.run.state) == ("", None, "never run")
    assert (fresh.late, fresh.verified, fresh.findings) == (False, 0, 0)
    assert (late.late, late.verified, late.shares, late.findings) == (True, 1, 2, 2)
    assert "older than 1.5 periods" in page("schedules.html", **values)


def test_links_lead_to_flowers_pages(sources: Sources, ledger: Ledger) -> None:
    copying(ledger)
    sources.roster.handle({"type": "worker-heartbeat", "hostname": "worker@ho/st?"})

    shown = page("job.html", **job_page(sources, "job"))
    assert 'href="http://flower/tasks?name=snapferry%20args%3Ajob"' in shown
    assert 'href="http://flower/worker/worker@ho%2Fst%3F"' in page("workers.html", **workers_page(sources))


def status(job_id: str, settled: int) -> JobStatus:
    names = dict.fromkeys(JobStatus.__dataclass_fields__, 0)
    given: dict[str, Any] = {"job_id": job_id, "state": State.COPYING, "copied": settled}
    return JobStatus(**{**names, **given, "bytes_copied": 100 * settled, "workers": (), "running": ()})


def test_the_speed_of_now_is_that_of_the_last_seconds() -> None:
    history = ThroughputHistory(list)
    for second in range(0, 100, 2):
        # Ten objects a second, and twice as many in the end.
        settled = 10 * second + max(0, 10 * (second - 70))
        history.add([status("one", settled), status("two", settled)], 1000.0 + second)

    now, all_of_them = history.current("one"), history.current_total()

    assert now is not None
    assert all_of_them is not None
    assert (now.objects, now.size_bytes) == pytest.approx((20, 2000))
    assert all_of_them.objects == pytest.approx(40)
    assert history.past("one")[0].objects == pytest.approx(10)
    assert history.current("nobody") is None


def test_a_job_that_ended_has_a_past_but_no_speed_of_now() -> None:
    history = ThroughputHistory(list)
    history.add([status("one", 0)], 1.0)
    history.add([status("one", 10)], 2.0)
    history.add([], 3.0)

    assert history.current("one") is None
    assert history.current_total() is None
    assert len(history.past("one")) == 1


def test_what_is_remembered_of_speeds_is_bounded_and_covers_all_of_a_job() -> None:
    history = ThroughputHistory(list)
    for second in range(5_000):
        history.add([status("long", second)], float(second))
    past = history.past("long")

    assert len(past) <= SAMPLES_KEPT
    assert (past[0].begin, past[-1].end) == (0.0, 4999.0)
    assert all(speed.objects == pytest.approx(1) for speed in past)

    for number in range(2 * JOBS_KEPT):
        history.add([status(f"job {number}", 0)], 5000.0 + number)
    assert len(history._jobs) == JOBS_KEPT


def test_the_chart_of_a_job_is_never_above_its_limit_although_pieces_come_at_once() -> None:
    """At 1,000 bytes a second, pieces of 5,000 bytes come every 5 seconds."""
    history = ThroughputHistory(list)
    for second in range(80):
        history.add([status("one", second // 5 * 50)], float(second))

    past, current = history.past("one"), history.current("one")

    assert {round(each.size_bytes) for each in past[15:]} == {1000}
    assert current is not None
    assert past[-1].size_bytes == current.size_bytes


def test_a_counter_that_goes_back_is_no_negative_speed() -> None:
    history = ThroughputHistory(list)
    history.add([status("one", 10)], 1.0)
    history.add([status("one", 5)], 2.0)

    assert history.past("one")[0].objects == 0


def test_a_chart_spans_its_box_and_keeps_within_it() -> None:
    found = chart([Throughput(float(n), n + 1.0, 1.0, 100.0 * (n % 5)) for n in range(300)])

    assert found is not None
    points = [tuple(map(float, point.split())) for point in found.line[1:].split("L")]
    assert points[0][0] == 0
    assert points[-1][0] == WIDTH
    assert all(0 <= y <= HEIGHT for _, y in points)
    assert min(y for _, y in points) == 0
    assert not found.objects
    assert 0 < found.peak <= 400


def test_there_is_no_chart_of_nothing() -> None:
    assert chart([]) is None
    assert chart([Throughput(float(n), n + 1.0, 0.0, 0.0) for n in range(10)]) is None
    objects_only = chart([Throughput(float(n), n + 1.0, 5.0, 0.0) for n in range(10)])
    assert objects_only is not None
    assert objects_only.objects


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> tuple[worker_roster.WorkerRoster, list[float]]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return worker_roster.WorkerRoster(make_fleet_app(Settings(broker_url="redis://127.0.0.1:1/0"))), now


def test_a_worker_is_online_silent_or_gone(called: tuple[worker_roster.WorkerRoster, list[float]]) -> None:
    found, now = called
    beat = {"type": "worker-heartbeat", "hostname": "w@h", "freq": 2.0, "active": 3, "processed": 70}
    found.handle(beat | {"loadavg": [1.5, 1, 1], "sw_ident": "py-celery", "sw_ver": "5.7.0"})

    (one,) = found.workers()
    assert (one.state, one.active, one.processed, one.load) == ("online", 3, 70, 1.5)
    assert one.software == "py-celery 5.7.0"

    now[0] += worker_roster.SILENT_S + 1
    (one,) = found.workers()
    assert (one.state, one.active) == ("silent", 0)

    found.handle(beat | {"type": "worker-offline"})
    assert found.workers()[0].state == "left"
    now[0] += worker_roster.REMEMBERED_S + 1
    assert found.workers() == []


def test_events_that_are_none_do_no_harm_and_the_roll_is_bounded(
    called: tuple[worker_roster.WorkerRoster, list[float]],
) -> None:
    found, now = called
    events: list[dict[str, Any]] = [
        {}, {"type": "task-sent", "hostname": "x"}, {"type": 7, "hostname": "x"}, {"hostname": []},
    ]  # fmt: skip
    for event in events:
        found.handle(event)
    assert found.workers() == []
    found.handle(
        {"type": "worker-online", "hostname": "odd", "active": "many", "loadavg": "high", "freq": None}
    )
    assert found.workers()[0].active == 0
    for number in (float("inf"), float("nan"), 10**400, -(10**400)):
        numbers = {"active": number, "processed": number, "freq": number, "loadavg": [number]}
        found.handle({"type": "worker-online", "hostname": "odd", "sw_ident": "\x1b[31m" * 1000} | numbers)
        assert found.workers()[0].processed == 0
        assert len(found.workers()[0].software) < 1500
        assert "\x1b" not in found.workers()[0].software
    for number in range(worker_roster.WORKERS_KEPT + 5):
        now[0] += 0.001
        found.handle({"type": "worker-heartbeat", "hostname": f"w{number}"})
    assert len(found.workers()) == worker_roster.WORKERS_KEPT


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
        ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False), ("localhost.example.org", False),
    ],
)  # fmt: skip
def test_only_loopback_addresses_need_no_password(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
    if loopback:
        server.check_options(address, None, None)
    else:
        with pytest.raises(server.InvalidOptions, match="SNAPFERRY_DASHBOARD_BASIC_AUTH"):
            server.check_options(address, None, None)
    server.check_options(address, ("user", "password"), None)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("127.0.0.1:5556", "127.0.0.1"), ("LocalHost", "localhost"), ("[::1]:5556", "::1"), ("localhost.", "localhost"),
        ("", ""), ("evil.example:5556", "evil.example"), ("[", ""), ("a@localhost", "localhost"),
    ],
)  # fmt: skip
def test_the_host_of_a_header(header: str, host: str) -> None:
    assert host_of(header) == host


def test_on_loopback_only_names_of_this_machine_and_those_given_are_allowed() -> None:
    assert allowed_hosts("127.0.0.1", ()) == frozenset({"localhost", "127.0.0.1", "::1"})
    assert "dash.example" in (allowed_hosts("::1", ("Dash.Example",)) or ())
    assert allowed_hosts("0.0.0.0", ()) is None
    assert allowed_hosts("0.0.0.0", ("dash.example",)) == frozenset({"dash.example"})


def test_a_password_is_known_only_as_a_whole() -> None:
    def header(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    login = ("operator", "pass:wörd")
    assert knows_password(header("operator:pass:wörd"), login)
    assert knows_password(header("operator:pass:wörd").replace("Basic", "basic"), login)
    for wrong in ("operator:pass", "operator:pass:wörd ", "x:pass:wörd", "", ":", "operator:"):
        assert not knows_password(header(wrong), login)
    for odd in ("", "Basic", "Basic !!!", "Bearer x", "Basic é", header("operator:pass:wörd") + "="):
        assert not knows_password(odd, login)


def test_a_password_of_any_bytes_is_known() -> None:
    header = "Basic " + base64.b64encode(b"us\xe9r:p\xff").decode()

    assert knows_password(header, ("us\udce9r", "p\udcff"))
    assert not knows_password(header, ("us\udce9r", "p\udcfe"))


@pytest.mark.parametrize(
    "url",
    ["flower", "ftp://host", "javascript:alert(1)", "http://", "http://me:secret@host", "http://host?x=1", "http://host:0",
     "http://h:x"],
)  # fmt: skip
def test_an_address_of_flower_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(server.InvalidOptions) as refused:
        server.check_options("127.0.0.1", None, url)
    assert "secret" not in str(refused.value)
    server.check_options("127.0.0.1", None, "https://flower.example/prefix/")


def test_the_login_comes_from_the_environment_and_is_never_repeated() -> None:
    variable = "SNAPFERRY_DASHBOARD_BASIC_AUTH"
    assert dashboard_login({}) is None
    assert dashboard_login({variable: ""}) is None
    assert dashboard_login({variable: "user:pass:word"}) == ("user", "pass:word")
    for wrong in ("hunter2", ":hunter2", "hunter2:"):
        with pytest.raises(InvalidSettings) as refused:
            dashboard_login({variable: wrong})
        assert "hunter2" not in str(refused.value)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("ink", "ground"), ("ink", "surface"), ("ink", "soft"), ("muted", "ground"), ("muted", "surface"),
        ("muted", "soft"), ("accent", "surface"), ("accent", "ground"), ("accent", "active-soft"), ("bad", "surface"),
        ("bad", "bad-soft"), ("good", "good-soft"), ("hold", "hold-soft"), ("surface", "ink"),
    ],
)  # fmt: skip
def test_text_stands_out_from_its_ground_as_wcag_asks(scheme: str, text: str, ground: str) -> None:
    style = (files("snapferry.orchestrator.dashboard") / "static" / "dashboard.css").read_text()
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in style.split(":root {")[1:3]
    )
    colors = light if scheme == "light" else light | dark

    brighter, darker = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)

    assert (brighter + 0.05) / (darker + 0.05) >= 4.5
