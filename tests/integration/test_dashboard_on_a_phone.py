"""The pages on narrow and wide screens: a job of the list takes a few lines, and nothing is wider than its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.workers.ledger import Ledger, ScheduleLedger
from snapferry.workers.messages import MirrorMessage, ScrubMessage, StoreRef
from tests.unit.dashboard import states
from tests.unit.dashboard.test_jobs_list import add
from tests.unit.test_dashboard import schedule

from .dashboards import dashboard
from .test_dashboard_in_a_browser import WIDTHS, cut_off, tab

# Pixels of a job of the list on a screen that is 400 pixels wide.
TALLEST = 150

PHONE = {"width": WIDTHS[0], "height": 800}

SOURCE = "s3://company-prod-archive-eu-central-1/snapshots/of/customer-data"
DESTINATION = "file:///mnt/nas-of-the-other-site/" + "a-folder-with-a-long-name/" * 5 + "archive"
ERROR = f"StoreFull: {DESTINATION} has no space left on the device; 3 of 90,000 objects could not be copied"

JOBS = 17

SHOWN = ("done", "failed", "copying", "planning", "queued", "cancelled")


@pytest.fixture
def ledger(redis_url: str) -> Ledger:
    return Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)


def fill(ledger: Ledger) -> None:
    """Write jobs in all states, with long stores, long errors and long states."""
    for number in range(JOBS):
        state = SHOWN[number % len(SHOWN)]
        more: dict[str, Any] = {"error": ERROR, "failed": 3} if state == "failed" else {}
        more |= {"action": "heal", "objects_total": 0} if state == "queued" else {}
        more |= {"paused": "1", "cancelling": "1"} if state == "planning" else {}
        add(ledger, f"{number:08}-job", state, SOURCE, DESTINATION, submitted=number, **more)


def test_a_job_of_the_list_takes_a_few_lines_on_a_phone(
    chromium: Any, ledger: Ledger, redis_url: str, tmp_path: Path
) -> None:
    fill(ledger)
    with dashboard(tmp_path, redis_url) as shown, tab(chromium, shown, viewport=PHONE) as page:
        page.goto(shown.url)
        rows = page.locator("table.jobs tbody tr")
        texts = [" ".join(text.split()) for text in rows.all_inner_texts()]
        heights = page.evaluate(
            "[...document.querySelectorAll('table.jobs tbody tr')].map((one) => one.offsetHeight)"
        )
        assert len(heights) == JOBS
        assert max(heights) <= TALLEST
        for number, text in enumerate(texts):
            state = SHOWN[number % len(SHOWN)]
            said = [
                f"{number:08}",
                state,
                SOURCE[-16:],
                DESTINATION[-16:],
                "for" if state in SHOWN[2:5] else "ago",
            ]
            said += ["StoreFull"] if state == "failed" else ["heal"] if state == "queued" else []
            said += [] if state == "queued" else ["%"]
            assert [one for one in said if one not in text] == []
            assert "objects" not in text.replace("objects could", ""), "the rest is on the page of the job"
        # A touch beside the id opens the job.
        rows.nth(1).click(position={"x": 200, "y": heights[1] - 5})
        page.wait_for_url("**/jobs/00000001-job")
        assert ERROR[:60] in page.locator("main").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_its_place(
    chromium: Any, ledger: Ledger, redis_url: str, tmp_path: Path, scheme: str
) -> None:
    pair = {"source": StoreRef(url=SOURCE), "destination": StoreRef(url=DESTINATION)}
    with dashboard(tmp_path, redis_url) as shown, tab(chromium, shown, color_scheme=scheme) as page:

        def look(path: str) -> None:
            page.goto(shown.url + path)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                assert cut_off(page) == [], (path, width)

        fill(ledger)
        schedule(ledger, "nightly", MirrorMessage(name="nightly", **pair))
        schedule(
            ledger, "scrub:s", ScrubMessage(name="s", store=pair["destination"], shares=30, interval=86400)
        )
        ScheduleLedger(ledger.client, "mirror").started("nightly", f"{1:08}-job")
        ScheduleLedger(ledger.client, "scrub").started("s", f"{1:08}-job")
        states.worker(ledger)
        for path in ("/", "/schedules", "/throughput", "/workers", f"/jobs/{1:08}-job"):
            look(path)
        for name in ("copied", "all_failed", "paused", "waiting", "no_workers", "hanging", "empty_snapshot"):
            ledger.client.flushdb()
            states.STATES[name](ledger)
            look("/jobs/job")
