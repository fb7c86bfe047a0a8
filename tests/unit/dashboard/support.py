"""What the pages are made from, a server of them, and pages as a person reads them: tiles, tables and lists by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.dashboard import lookup, worker_roster
from snapferry.orchestrator.dashboard.export.failures import FailureLists
from snapferry.orchestrator.dashboard.handlers import make_application
from snapferry.orchestrator.dashboard.pages import render
from snapferry.orchestrator.dashboard.throughput_history import ThroughputHistory
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.settings.environment import Settings
from tests.unit.served import Served, serving


class NoHeartbeats(worker_roster.WorkerRoster):
    """A roster without a thread: it hears of what a test tells it."""

    listening = True

    @property
    def settled(self) -> bool:
        return self.listening


class NotFoundYet(lookup.Lookup):
    """A look-up that has found what it is given, without a process."""

    found = lookup.Found([])

    def find(self, job_id: str, *, failed: int, first: int, count: int) -> lookup.Found:
        return self.found


def sources_of(redis_url: str, *, flower_url: str = "") -> Sources:
    """Return what the pages are made from, without the threads of a server."""
    settings = Settings(broker_url=redis_url)
    jobs = Jobs(settings)
    history = ThroughputHistory(jobs.open)
    return Sources(jobs, history, NoHeartbeats(make_fleet_app(settings)), NotFoundYet(settings), flower_url)


@contextmanager
def dashboard(sources: Sources, **options: Any) -> Iterator[Served]:
    """Serve the pages of *sources* for the block; *options* are those of `make_application`."""
    given: dict[str, Any] = {"hosts": None, "login": None} | options
    with (
        ThreadPoolExecutor(4) as pool,
        FailureLists(sources.jobs._settings) as lists,
        serving(make_application(sources, pool=pool, failure_lists=lists, **given)) as served,
    ):
        yield served


def page(template: str, **values: Any) -> str:
    """Return a page as the server makes it."""
    return render(template, static=lambda name: f"/static/{name}", at=time.time(), **values)


class Shown(HTMLParser):
    """
    What a page shows.

    *figures*: name of a tile -> its text. *facts*: as *figures*, of the list of settings. *legend*: its lines. *rows*:
    for each row of a table, its cells by their labels. *bars*: for each bar its percent, and its parts with their
    widths. *callouts*: their texts. *text*: everything.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.figures: dict[str, str] = {}
        self.rows: list[dict[str, str]] = []
        self.bars: list[tuple[int, dict[str, float]]] = []
        self.lists: dict[str, list[str]] = {}
        self.callouts: list[str] = []
        self.links: dict[str, str] = {}
        self.text = ""
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self._name = ""
        self.feed(source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "rect":
            self.bars[-1][1][given["class"]] = float(given["width"])
        if tag in ("input", "link", "meta", "img", "path", "rect", "br"):
            return
        if tag == "tr":
            self.rows.append({})
        if given.get("role") == "progressbar":
            self.bars.append((int(given["aria-valuenow"]), {}))
        self._open.append((tag, given, []))

    def handle_data(self, data: str) -> None:
        self.text += data
        for _, _, texts in self._open:
            texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if not any(each[0] == tag for each in self._open):
            return
        while self._open:
            found, given, texts = self._open.pop()
            self._end(found, given, " ".join("".join(texts).split()))
            if found == tag:
                return

    def _end(self, tag: str, given: dict[str, str], text: str) -> None:
        if tag == "dt":
            self._name = text
        elif tag == "dd":
            self.figures[self._name] = text
        elif tag in ("td", "th") and self.rows:
            self.rows[-1][given.get("data-label", "title" if "title" in given.get("class", "") else text)] = (
                text
            )
        elif tag == "li":
            name = next((each[1].get("class", "") for each in reversed(self._open) if each[0] == "ul"), "")
            self.lists.setdefault(name.partition(" ")[0], []).append(text)
        elif "callout" in given.get("class", "").split():
            self.callouts.append(text)
        elif tag == "a":
            self.links[text] = given.get("href", "")

    @property
    def lines(self) -> dict[str, dict[str, str]]:
        """The rows of the list of jobs, by the first digits of the job's id."""
        return {row["title"].split()[0]: row for row in self.rows if "title" in row}
