"""The throughput of the fleet, of its stores and of its workers, in the last day or month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from snapferry.orchestrator.dashboard.chart import Chart, chart
from snapferry.orchestrator.dashboard.throughput_history import Throughput
from snapferry.workers.telemetry.traffic.history import Kind, Past, Series, TrafficHistory

from .links import Link
from .sources import CALM_S, Sources

STORES_SHOWN: Final = 20
WORKERS_SHOWN: Final = 30

# The current throughput is the mean of the last whole minutes.
CURRENT_MINUTES: Final = 5

# Period -> its name on the page, how many intervals make one point of a chart, and how long that is.
PERIODS: Final = {"day": ("24 hours", 12, "12 minutes"), "month": ("31 days", 6, "6 hours")}


@dataclass(frozen=True)
class Flow:
    """
    Bytes that move in one direction: *now* and at the *peak* of the period per second, *total* in the period.

    The peak is the highest point of the chart, or what moves now if that is more: *now* is a mean of fewer minutes than
    a point. *chart* is None if nothing moved.
    """

    now: float
    peak: float
    total: int
    chart: Chart | None


@dataclass(frozen=True)
class StoreTraffic:
    """What was read and written at a store."""

    name: str
    read: Flow
    written: Flow


@dataclass(frozen=True)
class WorkerTraffic:
    """What a worker moved."""

    name: str
    moved: Flow


def traffic_page(sources: Sources, *, period: str = "") -> dict[str, Any]:
    """Return the values of the page of throughput, in a *period* of `PERIODS`."""
    period = period if period in PERIODS else "day"
    with sources.jobs.records() as client:
        history = TrafficHistory(client)
        known = history.series()
        stores = list(dict.fromkeys(one.name for one in known if one.kind in (Kind.READ, Kind.WRITTEN)))
        workers = [one.name for one in known if one.kind is Kind.WORKER]
        shown = [Series(Kind.FLEET)]
        shown += [Series(kind, name) for name in stores[:STORES_SHOWN] for kind in (Kind.READ, Kind.WRITTEN)]
        shown += [Series(Kind.WORKER, name) for name in workers[:WORKERS_SHOWN]]
        past = history.past(shown)
    flows = {series: _flow(*found, period) for series, found in past.items()}
    return {
        "fleet": flows[Series(Kind.FLEET)],
        "stores": [
            StoreTraffic(name, flows[Series(Kind.READ, name)], flows[Series(Kind.WRITTEN, name)])
            for name in sorted(stores[:STORES_SHOWN])
        ],
        "workers": [
            WorkerTraffic(name, flows[Series(Kind.WORKER, name)]) for name in sorted(workers[:WORKERS_SHOWN])
        ],
        "more_stores": max(0, len(stores) - STORES_SHOWN),
        "more_workers": max(0, len(workers) - WORKERS_SHOWN),
        "period": PERIODS[period][0],
        "mean_of": PERIODS[period][2],
        "choices": [
            Link(text, "/throughput" if name == "day" else f"/throughput?period={name}", name == period)
            for name, (text, *_) in PERIODS.items()
        ],
        "refresh_s": CALM_S,
    }


def _flow(minutes: Past, hours: Past, period: str) -> Flow:
    found, step = (minutes if period == "day" else hours), PERIODS[period][1]
    points = _points(found, step)
    recent = minutes.size_bytes[-1 - CURRENT_MINUTES : -1]
    now = sum(recent) / (CURRENT_MINUTES * minutes.seconds)
    return Flow(
        now=now,
        peak=max(now, *(point.size_bytes for point in points)),
        total=found.total,
        chart=chart(points, columns=len(points)),
    )


def _points(past: Past, step: int) -> Sequence[Throughput]:
    """Return the throughput of each *step* intervals that are over, oldest first."""
    whole = past.size_bytes[:-1]
    begin, seconds = past.end - past.seconds * len(past.size_bytes), past.seconds * step
    first = len(whole) % step
    return [
        Throughput(
            begin + past.seconds * at,
            begin + past.seconds * at + seconds,
            0.0,
            sum(whole[at : at + step]) / seconds,
        )
        for at in range(first, len(whole), step)
    ]
