"""
The dashboard in a real browser: it moves on its own, breaks none of its own rules, and fits a phone.

With SNAPFERRY_SCREENSHOTS=docs/images the pictures of the documentation are made anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import JobSpec, Limits
from snapferry.workers.settings.environment import Settings
from tests.sample import random_files

from .dashboards import Dashboard, dashboard
from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, until
from .raw_store import write_snapshots
from .test_dashboard import request

PHONE = {"width": 390, "height": 844}
WIDTHS = (400, 1000, 1600)
DESK = {"width": 1280, "height": 860}

ODD = [
    "./photos/2019/<b>Zürich</b>.jpg",
    "./etc/left\u202egpj.exe",
    "./" + "a-very-long-directory-name/" * 30 + "x",
]

# Whatever the browser refuses by the page's own policy is an error in its console as well, and this names it.
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


@contextmanager
def tab(browser: Any, shown: Dashboard, **options: Any) -> Iterator[Any]:
    """Open a tab; at its end nothing was wrong in it, and nothing was asked of others."""
    context = browser.new_context(viewport=options.pop("viewport", DESK), **options)
    context.add_init_script(TELL_VIOLATIONS)
    wrong: list[str] = []
    elsewhere: list[str] = []
    page = context.new_page()
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda sent: None if sent.url.startswith(f"{shown.url}/") else elsewhere.append(sent.url)
    )
    page.wrong = wrong
    try:
        yield page
        assert wrong == []
        assert elsewhere == []
    finally:
        context.close()


def picture(page: Any, name: str, *, full: bool = False) -> None:
    """Take a picture for the documentation, if that is asked for."""
    if folder := os.environ.get("SNAPFERRY_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"dashboard-{name}.png"), full_page=full)


def cut_off(page: Any) -> list[str]:
    """Return what does not fit into the window, or into the part of the page that it is in."""
    found: list[str] = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".card, .callout, .figure, main, header")]
            .filter((one) => one.scrollWidth > one.clientWidth + 1)
            .map((one) => `${one.tagName} ${one.className} ${one.scrollWidth} > ${one.clientWidth}`)"""
    )
    return found


def number(page: Any, selector: str) -> int:
    """Return how far a bar is, -1 if it is not there."""
    bar = page.locator(selector)
    return int(bar.first.get_attribute("aria-valuenow")) if bar.count() else -1


def test_a_job_can_be_followed_in_a_browser(chromium: Any, redis_url: str, tmp_path: Path) -> None:
    files = random_files(300, size=20_000) | {path: path.encode() for path in ODD}
    ids = write_snapshots(tmp_path / "a", [files, random_files(200, size=30_000, seed=2)])
    (large,) = write_snapshots(tmp_path / "many", [random_files(1_500, size=4_000, seed=3)])
    for path in ODD:
        (tmp_path / "a" / object_key(digest(path.encode()))).unlink()
    settings = Settings(broker_url=redis_url, batch_objects=50)
    fleet, jobs = Fleet(redis_url, tmp_path), Jobs(settings)
    with (
        dashboard(tmp_path, redis_url, "--flower", "http://127.0.0.1:5555") as shown,
        fleet.orchestrator(),
        fleet.worker("worker-1"),
    ):
        done = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), ids[1:]))
        assert jobs.wait(done, timeout_s=PATIENCE_S).state is State.DONE
        failed = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        assert jobs.wait(failed, timeout_s=PATIENCE_S).state is State.FAILED
        cancelled = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "d")), ids[1:]))
        jobs.cancel(cancelled)

        with tab(chromium, shown) as page:
            # At a rate, so that it cannot end before there is a line to be drawn.
            pair = store_pair(str(tmp_path / "many"), str(tmp_path / "e"))
            moving = jobs.submit(JobSpec.of(*pair, [large], limits=Limits(rate=500_000)))
            page.goto(f"{shown.url}/jobs/{moving}")
            page.evaluate("window.mark = 1")
            page.locator("nav a", has_text="Workers").focus()
            # Held in the middle, so that it cannot end before it was looked at.
            until(lambda: jobs.status(moving).objects_settled, "it moves")
            jobs.pause(moving)
            page.wait_for_selector(".badge:text-is('copying, paused')", timeout=PATIENCE_S * 1000)
            until(lambda: not jobs.running(moving), "running batches came to their end")
            page.wait_for_selector("text=No worker runs a batch", timeout=PATIENCE_S * 1000)
            seen = number(page, ".great .bar")
            assert 0 < seen < 100
            jobs.unpause(moving)
            # A function of Playwright's own that waits would have to be allowed by the page's policy.
            until(lambda: number(page, ".great .bar") > seen, "the page moves on its own", timeout_s=60)
            page.wait_for_selector("path.line", timeout=PATIENCE_S * 1000, state="attached")
            picture(page, "running")
            jobs.limit(moving, {"rate": None})
            page.wait_for_selector(".badge:text-is('done')", timeout=PATIENCE_S * 1000)
            assert number(page, ".great .bar") == 100
            assert page.evaluate("window.mark") == 1, "it was never loaded again"
            assert page.evaluate("document.activeElement.textContent.trim()") == "Workers"
            assert "done" in page.title()

        # What is hostile is shown, and does nothing.
        with tab(chromium, shown) as page:
            page.goto(f"{shown.url}/jobs/{failed}")
            page.wait_for_selector("text=Zürich", timeout=PATIENCE_S * 1000)
            assert page.locator(".place b").count() == 0
            assert page.locator(".place", has_text="\\u202e").count() == 1
            picture(page, "failed", full=True)

        with tab(chromium, shown) as page:
            page.goto(f"{shown.url}/workers")
            page.wait_for_selector(".badge:text-is('online') >> nth=1", timeout=PATIENCE_S * 1000)
            picture(page, "workers")

        retried = jobs.retry(failed)
        assert jobs.wait(retried, timeout_s=PATIENCE_S).state is State.FAILED
        with tab(chromium, shown) as page:
            for path in ("/", f"/jobs/{failed}", "/workers", "/schedules", "/throughput"):
                page.goto(shown.url + path)
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 900})
                    assert cut_off(page) == [], (path, width)
        with tab(chromium, shown, viewport={"width": WIDTHS[-1], "height": 900}) as page:
            page.goto(shown.url)
            # Even these long paths take no more than two lines each.
            heights = page.evaluate("[...document.querySelectorAll('.route')].map((one) => one.offsetHeight)")
            assert max(heights) < 100
            # What is wrong comes first, with the command that goes on.
            first = page.locator(".attention .callout").first
            assert retried[:8] in first.text_content()
            assert f"snapferry retry {retried}" in first.text_content()

        paths = ("/", f"/jobs/{failed}", f"/jobs/{moving}", "/workers", "/schedules", "/nowhere")
        # Colours change no width.
        for scheme in ("light", "dark") if os.environ.get("SNAPFERRY_SCREENSHOTS") else ("light",):
            with tab(chromium, shown, viewport=PHONE, color_scheme=scheme) as page:
                for path, name in zip(paths, ("jobs", "failed", "", "workers", "", ""), strict=True):
                    page.goto(shown.url + path)
                    width = page.evaluate("document.documentElement.scrollWidth")
                    assert width <= PHONE["width"], (path, width)
                    if name:
                        picture(page, f"{name}-phone-{scheme}")
                page.wrong[:] = [said for said in page.wrong if "404" not in said]
        with tab(chromium, shown, color_scheme="dark") as page:
            page.goto(shown.url)
            assert page.locator("tbody tr").count() == 5
            picture(page, "jobs-dark")
        with tab(chromium, shown) as page:
            page.goto(shown.url)
            picture(page, "jobs")
            page.click(f"text={failed[:8]}")
            page.wait_for_url(f"**/jobs/{failed}")


def test_a_page_can_be_paused_and_keeps_what_was_opened(
    chromium: Any, redis_url: str, tmp_path: Path
) -> None:
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    ledger.create(request("job"))
    with dashboard(tmp_path, redis_url) as shown, tab(chromium, shown) as page:
        page.clock.install()
        page.goto(shown.url)
        page.click("#hold")
        assert page.locator("#hold").text_content() == "Resume updates"
        ledger.cancel("job")
        ledger.create(request("another"))
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url))
        page.clock.run_for(60_000)
        assert asked == []
        assert page.locator(".badge").all_text_contents() == ["queued"]
        page.click("#hold")
        page.wait_for_selector(".badge:text-is('cancelled')")
        # Jobs are told apart by their ids, wherever they move.
        assert [row.get_attribute("data-key") for row in page.locator("tbody tr").all()] == ["another", "job"]
        assert page.locator(".badge").all_text_contents() == ["queued", "cancelled"]


def test_a_page_says_that_redis_is_away_keeps_what_it_showed_and_goes_on(
    chromium: Any, tmp_path: Path
) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        ledger = Ledger(redis.Redis.from_url(server.url, decode_responses=True), expires_s=3600)
        ledger.create(request("job"))
        with dashboard(tmp_path, server.url) as shown, tab(chromium, shown) as page:
            page.goto(shown.url)
            server.kill()
            page.wait_for_selector("#banner:not([hidden])", timeout=PATIENCE_S * 1000)
            assert "Redis does not answer" in page.locator("#banner").text_content()
            assert page.locator(".badge").all_text_contents() == ["queued"]
            server.start()
            ledger.cancel("job")
            page.wait_for_selector("#banner", state="hidden", timeout=PATIENCE_S * 1000)
            page.wait_for_selector(".badge:text-is('cancelled')", timeout=PATIENCE_S * 1000)
            # The browser itself notes each answer that was no success.
            page.wrong[:] = [said for said in page.wrong if "503" not in said]


def test_without_scripts_the_browser_loads_the_page_again(
    chromium: Any, redis_url: str, tmp_path: Path
) -> None:
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    ledger.create(request("job"))
    with (
        dashboard(tmp_path, redis_url, "--verbose") as shown,
        tab(chromium, shown, java_script_enabled=False) as page,
    ):
        page.goto(f"{shown.url}/jobs/job")
        assert not page.locator("#hold").is_visible()
        loads = re.compile(r"GET /jobs/job 200")
        until(lambda: len(loads.findall(shown.process.logged())) > 1, "it is loaded again")
