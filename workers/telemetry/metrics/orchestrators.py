"""The number of orchestrators, which also a worker exports: without one, the metrics of the fleet are missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import Metric as Family
from prometheus_client.core import GaugeMetricFamily
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import fail_fast_client
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster

from .catalogue import ORCHESTRATORS

# Seconds for one answer of Redis.
_ANSWER_S: Final = 2.0


class OrchestratorCount:
    """A collector of the number of orchestrators that run, by their roster. Without an answer of Redis it has none."""

    def __init__(self, broker_url: str) -> None:
        self._roster = OrchestratorRoster(fail_fast_client(broker_url, _ANSWER_S))

    def collect(self) -> Iterable[Family]:
        try:
            running = self._roster.running()
        except (RedisError, OSError):
            return
        family = GaugeMetricFamily(ORCHESTRATORS.name, ORCHESTRATORS.help, labels=ORCHESTRATORS.labels)
        family.add_metric((), running)
        yield family
