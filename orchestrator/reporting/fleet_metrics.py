"""
The metrics of the whole fleet, which an orchestrator asks of Redis when it is scraped.

Every orchestrator exports the same ones: take the greatest, not the sum. Where
Redis does not answer in time there is `snapferry_broker_up` 0 and nothing else:
an old figure would be taken for a true one.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis
from celery import Celery
from redis.exceptions import RedisError

from snapferry.workers.app import SENT_AT
from snapferry.workers.broker.connection import hasty_client
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import JobStatus, Ledger, Standing, State, UnknownJob
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, copy_queue, lists
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.metrics.catalogue import ORCHESTRATOR, WORKER, Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

# Redis has so long for one answer, and for all of a scrape's; workers have so long to say that they are there.
ANSWER_S: Final = 2.0
ALL_ANSWERS_S: Final = 3.0
WORKERS_S: Final = 1.0

# Ended jobs are counted among so many of the latest.
LATEST_JOBS: Final = 1000

_FINAL: Final = frozenset(state.value for state in State if state.final)
_SNAPSHOT_STATES: Final = ("pending", "published", "trusted", "failed")


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"snapferry_{name}", "gauge", help_, (ORCHESTRATOR,), labels)


ASKED: Final = {
    metric.name.removeprefix("snapferry_"): metric
    for metric in (
        _gauge(
            "broker_up",
            "1 if Redis answered this scrape in time, else 0; no other gauge of the fleet is here then.",
        ),
        _gauge("broker_memory_bytes", "Memory that Redis uses, in bytes."),
        _gauge(
            "broker_memory_limit_bytes",
            "Memory that Redis may use, in bytes: its maxmemory, or where it has none the machine's.",
        ),
        _gauge("workers", "Workers and orchestrators that answered within a second, by role.", "role"),
        _gauge("queue_messages", "Tasks that wait in a queue and were not handed to any worker.", "queue"),
        _gauge(
            "queue_oldest_message_age_seconds",
            "For how long the task that is taken next from a queue has waited, by the clock of who queued it; 0 for"
            " an empty queue.",
            "queue",
        ),
        _gauge("unacked_messages", "Tasks that workers have taken and not ended: they run, or wait to be tried again."),
        _gauge(
            "jobs",
            f"Jobs by state: all that are open, and those of the latest {LATEST_JOBS:,} that have ended.",
            "state",
        ),
        _gauge("paused_jobs", "Open jobs that are paused."),
        _gauge("waiting_jobs", "Open jobs that wait for a store that nobody reaches."),
        _gauge(
            "open_snapshots",
            "Snapshots of the open jobs by state. Their sum is what is planned; what is pending is the lag.",
            "state",
        ),
        _gauge("oldest_open_job_age_seconds", "Seconds since the oldest open job was submitted; 0 if none is open."),
        _gauge(
            "longest_idle_job_seconds",
            "For how long nothing has moved of the open job that stands still the longest, paused ones left out.",
        ),
        _gauge("backlog_objects", "Objects that open jobs have planned and not settled."),
        _gauge("backlog_bytes", "Bytes that open jobs have planned and not settled, by their advisory sizes."),
        _gauge("running_batches", "Batches of open jobs that a worker has a lease on and runs."),
        _gauge("retrying_batches", "Batches of open jobs that wait for another try."),
        _gauge("expired_leases", "Batches of open jobs whose worker let its lease run out: it is dead, or cut off."),
    )
}  # fmt: skip


@dataclass
class Figures:
    """What one scrape found: name of a metric without its prefix -> labels -> value."""

    of: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def set(self, name: str, value: float, *labels: str) -> None:
        self.of.setdefault(name, {})[labels] = value


class FleetCollector:
    """Asks Redis, for `ALL_ANSWERS_S` + `ANSWER_S` seconds at most, then the workers. Never raises."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        assert settings.broker_url is not None  # make_app refuses settings without one
        # Impatient, unlike the client that work is done with.
        self._redis = hasty_client(settings.broker_url, ANSWER_S)
        self._ledger = Ledger(self._redis, expires_s=settings.job_expires)
        self._asking: threading.Thread | None = None

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import GaugeMetricFamily

        figures = Figures()
        try:
            ask_redis(self._redis, self._ledger, figures, deadline=time.monotonic() + ALL_ANSWERS_S)
        except (RedisError, OSError, TimeoutError):
            figures = Figures()
            figures.set("broker_up", 0)
        else:
            figures.set("broker_up", 1)
            for role, count in self._roles().items():
                figures.set("workers", count, role)
        for name, values in figures.of.items():
            metric = ASKED[name]
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _roles(self) -> dict[str, int]:
        """Return how many answer in each role; nothing if that could not be asked in time."""
        found: dict[str, int] = {}

        def ask() -> None:
            # Redis may have gone away since it answered.
            with suppress(Exception):
                queues = self._app.control.inspect(timeout=WORKERS_S).active_queues() or {}
                found.update(roles_of(queues.values()))

        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=ask, name="who-is-there", daemon=True)
            self._asking.start()
            self._asking.join(WORKERS_S + ANSWER_S)
        return dict(found)


def roles_of(answers: Iterable[list[dict[str, Any]]]) -> dict[str, int]:
    """Return how many of those who answered with the queues they take tasks from have which role."""
    roles = {WORKER: 0, ORCHESTRATOR: 0}
    for queues in answers:
        names = [str(queue.get("name")) for queue in queues]
        roles[WORKER] += any(name.startswith(COPY_QUEUE) for name in names)
        roles[ORCHESTRATOR] += any(name.startswith(PLAN_QUEUE) for name in names)
    return {str(role): count for role, count in roles.items()}


def ask_redis(client: redis.Redis, ledger: Ledger, figures: Figures, *, deadline: float) -> None:
    """
    Fill in what Redis knows.

    Raises `RedisError`, OSError, and TimeoutError at *deadline*, by the monotonic clock; *figures* are incomplete then.
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
        # A job whose record is gone, or in a state that this version does not know.
        with suppress(UnknownJob, ValueError):
            status = ledger.status(job_id)
            in_time()
            open_jobs.append((status, ledger.standing(job_id)))
    # Queues of their own are those that jobs name; whoever operates the fleet keeps them few.
    named = {copy_queue(status.queue) for status, _ in open_jobs}
    _ask_queues(client, figures, sorted({COPY_QUEUE, PLAN_QUEUE, *named}), now)
    for status, _ in open_jobs:
        states[status.state] += not status.state.final
    in_time()
    for state in ledger.states(ledger.job_ids()[:LATEST_JOBS]):
        states[state] += state in _FINAL
    for known in State:
        figures.set("jobs", states[known], known)
    _add_up(figures, [(status, standing) for status, standing in open_jobs if not status.state.final], now)


def _ask_server(client: redis.Redis, figures: Figures) -> float:
    """Return the time, in seconds since the epoch by the server's clock."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.info("memory")
        (seconds, microseconds), memory = pipe.execute()
    figures.set("broker_memory_bytes", memory.get("used_memory", 0))
    limit = memory.get("maxmemory") or memory.get("total_system_memory", 0)
    figures.set("broker_memory_limit_bytes", limit)
    return float(seconds) + float(microseconds) / 1e6


def _ask_queues(client: redis.Redis, figures: Figures, queues: Sequence[str], now: float) -> None:
    # What is taken next from a list is at its end.
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
    """Return for how long *message* has waited; 0 if it does not say, as of another version."""
    try:
        return max(0.0, now - float(json.loads(message or "{}")["headers"][SENT_AT]))
    except (ValueError, KeyError, TypeError):
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
