"""Where the views get their values."""

from __future__ import annotations

from dataclasses import dataclass

from snapferry.orchestrator.dashboard.lookup import Lookup
from snapferry.orchestrator.dashboard.throughput_history import ThroughputHistory
from snapferry.orchestrator.dashboard.worker_roster import WorkerRoster
from snapferry.orchestrator.jobs import Jobs


@dataclass(frozen=True)
class Sources:
    """Where the views get their values; *flower* is the address of Flower's pages, "" without them."""

    jobs: Jobs
    throughput: ThroughputHistory
    roster: WorkerRoster
    lookup: Lookup
    flower: str = ""


# Seconds between two updates of a page: while something runs, and otherwise.
LIVELY_S = 2
CALM_S = 10
