"""What the pages are made from, without the threads of a server."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.dashboard.throughput_history import ThroughputHistory
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings

from .support import NoHeartbeats, NotFoundYet


@pytest.fixture
def sources(redis_url: str) -> Sources:
    settings = Settings(broker_url=redis_url)
    jobs = Jobs(settings)
    history = ThroughputHistory(jobs.open)
    return Sources(jobs, history, NoHeartbeats(make_fleet_app(settings)), NotFoundYet(settings), "")


@pytest.fixture
def ledger(sources: Sources) -> Ledger:
    return sources.jobs._ledger
