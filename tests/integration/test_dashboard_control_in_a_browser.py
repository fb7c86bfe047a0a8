"""The dashboard's forms in a real browser: what it sends, without scripts, and from a page of another site."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import redis

from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import Limits

from .dashboards import dashboard
from .processes import until
from .test_dashboard import request
from .test_dashboard_in_a_browser import PHONE, tab


def copying(redis_url: str, job_id: str) -> Ledger:
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    ledger.create(request(job_id))
    ledger.advance(job_id, State.PLANNING)
    ledger.advance(job_id, State.COPYING, objects_total=10, bytes_total=10, batches_total=1)
    return ledger


def test_a_job_is_controlled_from_a_phone_without_scripts(
    chromium: Any, redis_url: str, tmp_path: Path
) -> None:
    ledger = copying(redis_url, "job")
    login = {"SNAPFERRY_DASHBOARD_BASIC_AUTH": "ann:secret"}
    who = {"username": "ann", "password": "secret"}
    with (
        dashboard(tmp_path, redis_url, "--control", env=login) as shown,
        tab(chromium, shown, viewport=PHONE, java_script_enabled=False, http_credentials=who) as page,
    ):
        page.goto(f"{shown.url}/jobs/job")
        page.get_by_role("button", name="Pause", exact=True).click()
        assert ledger.status("job").paused
        assert "copying, paused" in page.locator("h1 ~ .badge").text_content()
        page.get_by_role("button", name="Continue", exact=True).click()
        assert not ledger.status("job").paused

        page.get_by_role("link", name="Priority and limits…").click()
        page.get_by_label("low").check()
        page.get_by_role("button", name="Set priority").click()
        assert ledger.status("job").priority == "low"
        page.get_by_role("link", name="Priority and limits…").click()
        page.get_by_label("Bytes per second read from the source").fill("20M")
        page.get_by_role("button", name="Set limits").click()
        assert ledger.status("job").limits == Limits(rate=20_000_000)

        page.get_by_role("link", name="Cancel…").click()
        page.get_by_role("link", name="Back, do not cancel").click()
        assert not ledger.status("job").cancelling
        page.get_by_role("link", name="Cancel…").click()
        page.get_by_role("button", name="Cancel the job").click()
        assert ledger.status("job").cancelling
        assert page.locator("form[method=post]").count() == 0

        lines = [json.loads(line) for line in shown.process.logged().splitlines()[1:]]
    found = [(line["act"], line["user"], line["address"], line["result"]) for line in lines]
    acts = ("pause", "continue", "priority", "limit", "cancel")
    assert found == [(act, "ann", "127.0.0.1", "accepted") for act in acts]
    assert "secret" not in str(lines)


@contextmanager
def another_site(body: str) -> Iterator[str]:
    """Serve a page at another port: to browsers that is the same site, with the same cookies."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_page_of_another_site_cannot_send_the_form(chromium: Any, redis_url: str, tmp_path: Path) -> None:
    ledger = copying(redis_url, "job")
    with dashboard(tmp_path, redis_url, "--control") as shown:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{shown.url}/jobs/job")
        token = page.locator("input[name=_xsrf]").first.get_attribute("value")
        # Even if it had got hold of the token.
        evil = (
            f'<form method="post" action="{shown.url}/jobs/job/pause">'
            f'<input name="_xsrf" value="{token}"><button>win</button></form>'
        )
        for policy in ("", '<meta name="referrer" content="no-referrer">'):
            with another_site(policy + evil) as site:
                page.goto(site)
                with page.expect_response(re.compile("/pause$")) as answered:
                    page.get_by_role("button").click()
                assert answered.value.status == 403
        assert not ledger.status("job").paused
        page.goto(f"{shown.url}/jobs/job")
        # Chromium may never close a page that is on its way to another one.
        with page.expect_navigation():
            page.get_by_role("button", name="Pause", exact=True).click()
        until(lambda: ledger.status("job").paused, "a form of the dashboard itself is accepted")
        context.close()


def test_the_next_command_is_copied_by_a_button_and_without_scripts_selected_by_a_click(
    chromium: Any, redis_url: str, tmp_path: Path
) -> None:
    ledger = copying(redis_url, "job")
    ledger.pause("job", paused=True)
    with dashboard(tmp_path, redis_url) as shown:
        with tab(chromium, shown, permissions=["clipboard-read", "clipboard-write"]) as page:
            page.goto(f"{shown.url}/jobs/job")
            page.get_by_role("button", name="Copy", exact=True).click()
            until(lambda: page.locator("#copied").text_content() == "Copied", "it is copied")
            command = page.locator(".command code").text_content()
            assert command == page.evaluate("navigator.clipboard.readText()")
        with tab(chromium, shown, java_script_enabled=False) as page:
            page.goto(f"{shown.url}/jobs/job")
            assert page.locator(".command code").text_content() == command
            assert not page.get_by_role("button", name="Copy", exact=True).is_visible()
            selected = "getComputedStyle(document.querySelector('.command code')).userSelect"
            assert page.evaluate(selected) == "all"
