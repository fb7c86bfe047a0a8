"""The time zone of the pages: chosen in the address, kept in a cookie, and known to this machine."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from snapferry.orchestrator.dashboard import pages, zones
from snapferry.orchestrator.dashboard.throughput_history import Sample
from snapferry.orchestrator.dashboard.views.control import dismiss_page
from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.schedules import schedules_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.dashboard.views.traffic import traffic_page
from snapferry.orchestrator.dashboard.views.workers import workers_page
from snapferry.workers.ledger import Ledger, ScheduleLedger
from snapferry.workers.messages import MirrorMessage, ScrubMessage, StoreRef
from snapferry.workers.telemetry.traffic.history import Kind, Series, TrafficHistory
from tests.unit.test_dashboard import schedule
from tests.unit.test_dashboard_control import dashboard

from .states import STATES, planned
from .support import Shown, page

# 2026-07-01 12:00 UTC.
SUMMER = 1_782_907_200.0


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "12:00 UTC"),
        ("Europe/Berlin", "14:00 CEST"),
        ("Asia/Kolkata", "17:30 IST"),
        ("America/New_York", "08:00 EDT"),
        ("America/Sao_Paulo", "09:00 UTC-03"),
        ("../../etc/passwd", "12:00 UTC"),
        ("Europe", "12:00 UTC"),
        ("", "12:00 UTC"),
    ],
)
def test_times_are_shown_in_the_zone_and_in_utc_if_it_is_not_known(zone: str, shown: str) -> None:
    assert zones.written(SUMMER, zone, zones.Form.MINUTE) == f"2026-07-01 {shown}"


def test_every_zone_to_choose_from_is_known_and_the_chosen_one_is_among_them() -> None:
    assert all(map(zones.is_zone, zones.COMMON))
    assert zones.choices("UTC") == list(zones.COMMON)
    assert "Antarctica/Troll" in zones.choices("Antarctica/Troll")


def test_the_choice_is_kept_in_a_cookie_and_nonsense_is_not(sources: Sources) -> None:
    with dashboard(sources, control=False) as served:
        chosen = served.ask("/?tz=Europe/Berlin&state=failed")
        cookie = chosen.headers["set-cookie"]
        assert cookie.replace('"', "").startswith("tz=Europe/Berlin;")
        assert "HttpOnly" in cookie
        assert "<option selected>Europe/Berlin</option>" in chosen.body
        assert '<input type="hidden" name="state" value="failed">' in chosen.body

        for nonsense in ("Mars/Olympus", "%22%3E%3Cscript%3E", "../x", "x" * 300):
            page = served.ask(f"/?tz={nonsense}")
            assert "set-cookie" not in page.headers
            assert "<option selected>UTC</option>" in page.body
            assert "script>" not in page.body.partition("<main")[2]


# A date, a time of day, or both.
TIME = re.compile(r"\b(?:\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?|\d\d:\d\d(?::\d\d)?)\b")


def test_every_time_on_every_page_has_its_zone(sources: Sources, ledger: Ledger) -> None:
    STATES["dismissed"](ledger)
    planned(ledger, "moving")
    now = time.time()
    sources.throughput._jobs["moving"] = [Sample(now - 60 + at, at, at) for at in range(0, 60, 10)]
    stores = {"source": StoreRef(url="/a"), "destination": StoreRef(url="/b")}
    schedule(ledger, "m", MirrorMessage(name="m", **stores))
    schedule(ledger, "scrub:s", ScrubMessage(name="s", store=StoreRef(url="/a"), shares=2, interval=86400))
    ScheduleLedger(ledger.client, "mirror").started("m", "job")
    ScheduleLedger(ledger.client, "scrub").started("s", "job")
    with sources.jobs.records() as client:
        history = TrafficHistory(client)
        for ago in (7200, 3600):
            history._now = now - ago
            history.add(f"{ago}", 1, {Series(Kind.FLEET): 10**6, Series(Kind.WORKER, "one@host"): 10**6})
    found = {
        "jobs.html": [(jobs_page(sources, {}), 4)],
        "job.html": [(job_page(sources, "moving"), 4), (job_page(sources, "retry-failed"), 4)],
        "schedules.html": [(schedules_page(sources), 5)],
        "throughput.html": [(traffic_page(sources), 3)],
        "workers.html": [(workers_page(sources), 1)],
        "control/dismiss.html": [(dismiss_page(sources, "job"), 1)],
    }
    for template, values in found.items():
        for value, least in values:
            given = {"token": "", "control": True} if template.startswith("control/") else {}
            text = Shown(page(template, zone="Asia/Tokyo", **given, **value)).text
            times = list(TIME.finditer(text))
            assert len(times) >= least, (template, text)
            bare = [
                text[one.start() - 30 : one.end() + 5] for one in times if text[one.end() :][:4] != " JST"
            ]
            assert bare == [], template


def test_templates_write_times_by_the_one_function_alone() -> None:
    folder = Path(pages.__file__).parent
    sources = {file: file.read_text() for file in folder.rglob("*.py")} | {
        file: file.read_text() for file in folder.rglob("*.html")
    }
    assert [file.name for file, text in sources.items() if "strftime" in text] == ["zones.py"]
