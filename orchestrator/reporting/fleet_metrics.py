"""
Metrics of the whole fleet, which an orchestrator reads from Redis when it is scraped.

Every orchestrator exports the same values: aggregate them by max, not by sum. If Redis does not answer in time,
`snapferry_broker_up` is 0 and no other metric is exported, because old values would be taken for current ones.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from celery import Celery
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from redis.exceptions import RedisError

from snapferry.workers.app import SENT_AT
from snapferry.workers.broker.connection import fail_fast_client
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import DISMISSED, SUPERSEDED, JobStatus, Ledger, Standing, State, UnknownJob
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, copy_queue, lists
from snapferry.workers.redis_json import parse_json
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.metrics.catalogue import ORCHESTRATOR, WORKER, by_name, of_the_fleet

from .freshness_metrics import FRESHNESS_METRICS, ask_freshness, named_stores
from .notify_metrics import NOTIFY_METRICS, ask_notifications
from .scrub_metrics import SCRUB_METRICS, ask_scrubs

# Seconds for one answer of Redis, for all answers of a scrape, and for workers to answer.
ANSWER_S: Final = 2.0
ALL_ANSWERS_S: Final = 3.0
WORKERS_S: Final = 1.0

# Ended jobs are counted among this many of the latest jobs.
LATEST_JOBS: Final = 1000

_ENDED: Final = frozenset({*(state.value for state in State if state.final), SUPERSEDED, DISMISSED})
_SNAPSHOT_STATES: Final = ("pending", "published", "trusted", "failed")


ASKED: Final = by_name(
    of_the_fleet(
        "broker_up",
        "1 if Redis answered this scrape in time; 0 if not, and then no other metric of the fleet is exported.",
    ),
    of_the_fleet("broker_memory_bytes", "Memory that Redis uses, in bytes."),
    of_the_fleet(
        "broker_memory_limit_bytes",
        "Memory that Redis may use, in bytes: its maxmemory, or the memory of its machine if that is not set.",
    ),
    of_the_fleet("workers", "Workers and orchestrators that answered within a second, by role.", "role"),
    of_the_fleet("queue_messages", "Tasks in a queue that no worker has taken.", "queue"),
    of_the_fleet(
        "queue_oldest_message_age_seconds",
        "Seconds that the next task of a queue has waited, by the clock of the machine that queued it; 0 for an"
        " empty queue.",
        "queue",
    ),
    of_the_fleet("unacked_messages", "Tasks that workers have taken and not finished: they run, or wait for a retry."),
    of_the_fleet(
        "jobs",
        f"Jobs by state: all open ones, and those among the latest {LATEST_JOBS:,} that have ended."
        " A failed job is superseded when a later job did its work, and dismissed when an operator said so.",
        "state",
    ),
    of_the_fleet("paused_jobs", "Open jobs that are paused."),
    of_the_fleet("waiting_jobs", "Open jobs that wait for an unreachable store."),
    of_the_fleet(
        "open_snapshots",
        "Snapshots of open jobs by state. Their sum is what is planned; pending is the lag.",
        "state",
    ),
    of_the_fleet("oldest_open_job_age_seconds", "Seconds since the oldest open job was submitted; 0 if none is open."),
    of_the_fleet(
        "longest_idle_job_seconds",
        "Seconds without progress of the open job that has been idle the longest, without paused jobs.",
    ),
    of_the_fleet("backlog_objects", "Objects that open jobs have planned and not finished."),
    of_the_fleet("backlog_bytes", "Bytes that open jobs have planned and not finished, by their advisory sizes."),
    of_the_fleet("running_batches", "Batches of open jobs that workers run under a lease."),
    of_the_fleet("retrying_batches", "Batches of open jobs that wait for a retry."),
    of_the_fleet("expired_leases", "Batches of open jobs whose lease has expired: their worker died or is cut off."),
) | SCRUB_METRICS | FRESHNESS_METRICS | NOTIFY_METRICS  # fmt: skip


@dataclass
class Figures:
    """The values of one scrape: name of a metric without its prefix, then labels, then value."""

    of: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def set(self, name: str, value: float, *labels: str) -> None:
        self.of.setdefault(name, {})[labels] = value


class FleetCollector:
    """Reads Redis, for at most `ALL_ANSWERS_S` + `ANSWER_S` seconds, then asks the workers. Never raises."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        assert settings.broker_url is not None  # make_app refuses settings without one
        # With short timeouts, unlike the client of the tasks.
        self._redis = fail_fast_client(settings.broker_url, ANSWER_S)
        self._ledger = Ledger(self._redis, expires_s=settings.job_expires)
        self._stores = named_stores(settings)
        self._asking: threading.Thread | None = None

    def collect(self) -> Iterator[Family]:
        figures = Figures()
        try:
            ask_redis(
                self._redis,
                self._ledger,
                figures,
                deadline=time.monotonic() + ALL_ANSWERS_S,
                stores=self._stores,
            )
        except (RedisError, OSError, TimeoutError):
            figures = Figures()
            figures.set("broker_up", 0)
        else:
            figures.set("broker_up", 1)
            for role, count in self._roles().items():
                figures.set("workers", count, role)
        for name, values in figures.of.items():
            metric = ASKED[name]
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _roles(self) -> dict[str, int]:
        """Return how many nodes answer in each role; empty if none could be asked in time."""
        found: dict[str, int] = {}

        def ask() -> None:
            # Redis may have failed since it answered.
            with suppress(Exception):
                # Celery's `inspect` counts processes that share a name as one, and warns about them.
                replies = self._app.control.broadcast("active_queues", reply=True, timeout=WORKERS_S) or []
                answers = (queues for reply in replies for queues in reply.values())
                # A process may answer with an error instead.
                found.update(roles_of(queues for queues in answers if isinstance(queues, list)))

        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=ask, name="fleet-roles", daemon=True)
            self._asking.start()
            self._asking.join(WORKERS_S + ANSWER_S)
        return dict(found)


def roles_of(answers: Iterable[list[dict[str, Any]]]) -> dict[str, int]:
    """Return the number of processes in each role; each of *answers* has the queues that one serves."""
    roles = {WORKER: 0, ORCHESTRATOR: 0}
    for queues in answers:
        names = [str(queue.get("name")) for queue in queues]
        roles[WORKER] += any(name.startswith(COPY_QUEUE) for name in names)
        roles[ORCHESTRATOR] += any(name.startswith(PLAN_QUEUE) for name in names)
    return {str(role): count for role, count in roles.items()}


def ask_redis(
    client: redis.Redis,
    ledger: Ledger,
    figures: Figures,
    *,
    deadline: float,
    stores: Mapping[str, str] | None = None,
) -> None:
    """
    Add what Redis knows to *figures*. *stores* is name -> id of the stores that are reported by name.

    Raises `RedisError` or OSError, and TimeoutError at *deadline* on the monotonic clock; *figures* are incomplete
    then.
    """

    def in_time() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    now = _ask_server(client, figures)
    in_time()
    states: Counter[str] = Counter()
    open_jobs: list[tuple[JobStatus, Standing]] = []
    for job_id in ledger.open_jobs():
        in_time()
        # The record of a job may have expired, or have a state of another version.
        with suppress(UnknownJob, ValueError):
            status = ledger.status(job_id)
            in_time()
            open_jobs.append((status, ledger.standing(job_id)))
    # Only queues that open jobs name; operators keep their number small.
    named = {copy_queue(status.queue) for status, _ in open_jobs}
    _ask_queues(client, figures, sorted({COPY_QUEUE, PLAN_QUEUE, *named}), now)
    for status, _ in open_jobs:
        states[status.state] += not status.state.final
    in_time()
    for state in ledger.states(ledger.job_ids()[:LATEST_JOBS]):
        states[state] += state in _ENDED
    for known in (*State, SUPERSEDED, DISMISSED):
        figures.set("jobs", states[known], known)
    # A fleet without mirrors and scrubs has these metrics, without values.
    figures.of.update({name: {} for name in (*SCRUB_METRICS, *FRESHNESS_METRICS)})
    ask_scrubs(client, now, in_time, figures.set)
    in_time()
    ask_freshness(client, stores or {}, figures.set)
    ask_notifications(client, now, figures.set)
    _add_up(figures, [(status, standing) for status, standing in open_jobs if not status.state.final], now)


def _ask_server(client: redis.Redis, figures: Figures) -> float:
    """Return the time of the server, in seconds since the epoch."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.info("memory")
        (seconds, microseconds), memory = pipe.execute()
    figures.set("broker_memory_bytes", memory.get("used_memory", 0))
    limit = memory.get("maxmemory") or memory.get("total_system_memory", 0)
    figures.set("broker_memory_limit_bytes", limit)
    return float(seconds) + float(microseconds) / 1e6


def _ask_queues(client: redis.Redis, figures: Figures, queues: Sequence[str], now: float) -> None:
    # The next task of a list is at its end.
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            for name in lists(queue):
                pipe.llen(name)
                pipe.lindex(name, -1)
        pipe.hlen(UNACKED)
        answers = iter(pipe.execute())
    for queue in queues:
        length, age = 0, 0.0
        for _ in lists(queue):
            length += next(answers)
            age = max(age, _age(next(answers), now))
        figures.set("queue_messages", length, queue)
        figures.set("queue_oldest_message_age_seconds", age, queue)
    figures.set("unacked_messages", next(answers))


def _age(message: str | None, now: float) -> float:
    """Return the seconds that *message* has waited, 0 if it has no time, as from another version."""
    try:
        return max(0.0, now - float(parse_json(message or "{}")["headers"][SENT_AT]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0.0


def _add_up(figures: Figures, jobs: list[tuple[JobStatus, Standing]], now: float) -> None:
    snapshots = Counter(dict.fromkeys(_SNAPSHOT_STATES, 0))
    sums: Counter[str] = Counter()
    oldest = idle = 0.0
    for status, standing in jobs:
        snapshots["published"] += status.snapshots_published
        snapshots["trusted"] += status.snapshots_trusted
        snapshots["failed"] += status.snapshots_failed
        snapshots["pending"] += max(0, status.snapshots_total - status.snapshots_settled)
        sums["paused_jobs"] += status.paused
        sums["waiting_jobs"] += status.waiting is not None
        sums["backlog_objects"] += max(0, status.objects_total - status.objects_settled)
        sums["backlog_bytes"] += max(0, status.bytes_total - status.bytes_settled)
        sums["running_batches"] += standing.running
        sums["retrying_batches"] += standing.leased - standing.running
        sums["expired_leases"] += len(standing.expired)
        oldest = max(oldest, now - status.submitted_at)
        if not status.paused:
            idle = max(idle, standing.idle_s)
    for state, count in snapshots.items():
        figures.set("open_snapshots", count, state)
    for name in (
        "paused_jobs", "waiting_jobs", "backlog_objects", "backlog_bytes", "running_batches", "retrying_batches",
        "expired_leases",
    ):  # fmt: skip
        figures.set(name, sums[name])
    figures.set("oldest_open_job_age_seconds", oldest)
    figures.set("longest_idle_job_seconds", idle)
