"""The page of throughput: what it shows is what the fleet recorded, also after a restart."""

from __future__ import annotations

import re
import time

import pytest

from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.dashboard.views.traffic import (
    PERIODS,
    STORES_SHOWN,
    WORKERS_SHOWN,
    Flow,
    traffic_page,
)
from snapferry.workers.telemetry.traffic.history import Kind, Series, TrafficHistory

from .dashboard.support import page, sources_of
from .test_dashboard import HOSTILE, UNFIT, Seen

NOW = time.time() // 3600 * 3600 + 1800


@pytest.fixture
def sources(redis_url: str) -> Sources:
    return sources_of(redis_url)


@pytest.fixture
def history(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> TrafficHistory:
    """A history whose clock, also that of the page, stands still; `_now` sets it."""
    monkeypatch.setattr(TrafficHistory, "_now", NOW, raising=False)
    made = TrafficHistory.__init__

    def init(self: TrafficHistory, client: object) -> None:
        made(self, client)  # type: ignore[arg-type]
        self._now = NOW

    monkeypatch.setattr(TrafficHistory, "__init__", init)
    with sources.jobs.records() as client:
        return TrafficHistory(client)


def moved(history: TrafficHistory, ago_s: float, size_bytes: int, *series: Series) -> None:
    history._now = NOW - ago_s
    history.add(f"{ago_s} {series}", 1, dict.fromkeys([Series(Kind.FLEET), *series], size_bytes))


def test_stores_and_workers_have_their_throughput_of_the_day_and_of_the_month(
    sources: Sources, history: TrafficHistory
) -> None:
    read, written = Series(Kind.READ, "s3://a/b"), Series(Kind.WRITTEN, "file:///b")
    worker = Series(Kind.WORKER, "one@host")
    moved(history, 10 * 86400, 500_000_000, read, worker)
    moved(history, 7200, 36_000_000, read, written, worker)
    moved(history, 120, 3_000_000, read, written, worker)

    day = traffic_page(sources)
    assert [(store.name, store.read.total, store.written.total) for store in day["stores"]] == [
        ("file:///b", 0, 39_000_000),
        ("s3://a/b", 39_000_000, 0),
    ]
    (one,) = day["workers"]
    assert (one.name, one.moved.total, one.moved.now) == ("one@host", 39_000_000, 10_000.0)
    assert one.moved.peak == one.moved.chart.peak == 50_000.0
    assert day["fleet"].total == 39_000_000
    month = traffic_page(sources, period="month")
    assert month["fleet"].total == month["workers"][0].moved.total == 539_000_000
    assert month["fleet"].now == 10_000.0

    text = page("throughput.html", **day)
    assert "10.0 kB/s now" in text
    assert "39.0 MB in all" in text
    assert text.count('class="spark"') == 3


def test_what_moves_now_is_never_above_the_peak(sources: Sources, history: TrafficHistory) -> None:
    """A fleet that has just begun: a point of the chart is the mean of more minutes."""
    worker = Series(Kind.WORKER, "one@host")
    moved(history, 120, 3_000_000, worker)

    for period in PERIODS:
        found = traffic_page(sources, period=period)
        for flow in (found["fleet"], found["workers"][0].moved):
            assert flow.now == flow.peak == 10_000.0
        top = re.search(
            r"means of \d+ (?:minutes|hours); the top is ([\d.]+) ", page("throughput.html", **found)
        )
        assert period == "month" or (top is not None and float(top[1]) < 10)


def test_an_idle_fleet_has_a_page_of_its_own(sources: Sources, history: TrafficHistory) -> None:
    found = traffic_page(sources, period="<year>")
    assert found["fleet"] == Flow(0.0, 0.0, 0, None)
    assert "No traffic in the last 31 days" in page("throughput.html", **found)

    moved(history, 20 * 86400, 5, Series(Kind.WORKER, "w"))
    assert "No traffic" not in page("throughput.html", **traffic_page(sources))
    assert "5 B in all" in page("throughput.html", **traffic_page(sources, period="month"))


def test_a_page_is_bounded_and_names_are_shown_as_text(sources: Sources, history: TrafficHistory) -> None:
    moved(history, 90, 5, *(Series(Kind.WORKER, f"w{number}") for number in range(100)))
    moved(history, 90, 5, *(Series(Kind.WRITTEN, f"s{number}") for number in range(100)))
    moved(history, 60, 5, *(Series(Kind.WORKER, f"{number}{text}") for number, text in enumerate(HOSTILE)))
    moved(history, 60, 5, *(Series(Kind.READ, f"{number}{text}") for number, text in enumerate(HOSTILE)))

    found = traffic_page(sources)
    text = page("throughput.html", **found)

    assert (len(found["stores"]), len(found["workers"])) == (STORES_SHOWN, WORKERS_SHOWN)
    assert found["more_stores"] == 100 + len(HOSTILE) - STORES_SHOWN
    assert not UNFIT.search(text)
    assert Seen(text).tags.count("img") == 1
    assert not re.search("<script>alert", text)
    assert len(text) < 400_000
