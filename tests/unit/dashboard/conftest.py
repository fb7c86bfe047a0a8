"""What the pages are made from, without the threads of a server."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.workers.ledger import Ledger

from .support import sources_of


@pytest.fixture
def sources(redis_url: str) -> Sources:
    return sources_of(redis_url)


@pytest.fixture
def ledger(sources: Sources) -> Ledger:
    return sources.jobs._ledger
