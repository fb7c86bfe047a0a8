"""
What is counted: once for each batch, request, error and task.

Every function does nothing, for next to no time, until `enable` was called.
None raises: what cannot be counted must not fail the work.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import signals

from snapferry.stores.errors import StoreError
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import Begun
from snapferry.workers.outcome import BatchOutcome, Failure

from .catalogue import COUNTED, TASK_STATES, Metric, Role

log = logging.getLogger(__name__)

_OURS: Final = "snapferry."

# name -> its prometheus_client metric; empty until `enable`.
_metrics: dict[str, Any] = {}


def enable(role: Role, tasks: list[str]) -> None:
    """
    Count from now on what *role* does, in this process and those that are forked from it.

    *tasks* are the names of the tasks that it runs. May be called once in a process.
    """
    for metric in COUNTED:
        if role in metric.roles:
            _metrics[metric.name] = _make(metric)
            for values in _zeros(metric, tasks):
                _metrics[metric.name].labels(*values)
    signals.task_prerun.connect(_task_begins, weak=False)
    signals.task_postrun.connect(_task_ended, weak=False)


def disable(reason: str) -> None:
    """Count no more in this process, and log why."""
    if _metrics:
        log.error("this process's metrics are not counted: %s", reason)
        _metrics.clear()


def delivered(begun: Begun) -> None:
    """Count a delivery of a batch that is not to be run; one that is gets counted by how it ends."""
    checks = (
        (begun.accounted, "repeated"), (begun.stopped, "stopped"), (begun.paused, "held"),
        (bool(begun.holder), "stepped_aside"),
    )  # fmt: skip
    end = next((end for applies, end in checks if applies), None)
    if end is not None:
        _add("snapferry_batch_deliveries_total", 1, end)


def gave_up(outcome: BatchOutcome, *, end: str = "given_up") -> None:
    """Count a batch that was not run any more, and whose objects were accounted as failed."""
    _add("snapferry_batch_deliveries_total", 1, end)
    _add("snapferry_objects_total", len(outcome.failures), "failed")
    _failed(outcome.failures)


def parked() -> None:
    """Count a batch that was left to workers that can reach its stores."""
    _add("snapferry_batch_deliveries_total", 1, "parked")


@contextmanager
def running() -> Iterator[None]:
    """Count a batch as in flight for the duration of the block."""
    _tell("snapferry_batches_in_flight", "inc", 1)
    try:
        yield
    finally:
        _tell("snapferry_batches_in_flight", "dec", 1)


def ran(outcome: BatchOutcome, seconds: float, *, again: bool) -> None:
    """Count what a run of a batch did; *again*: the batch will be run again for what failed."""
    _add("snapferry_batch_deliveries_total", 1, "retried" if again else "ended")
    _tell("snapferry_batch_duration_seconds", "observe", seconds)
    _add("snapferry_copied_bytes_total", outcome.bytes_copied)
    _add("snapferry_objects_total", outcome.copied, "copied")
    if not again:
        _add("snapferry_objects_total", outcome.present, "present")
        _add("snapferry_objects_total", len(outcome.failures), "failed")
    _failed(outcome.failures)


def stopped() -> None:
    """Count a run of a batch that ended because its job was cancelled."""
    _add("snapferry_batch_deliveries_total", 1, "stopped")


def met(error: StoreError) -> None:
    """Count an error that a step of an orchestrator met."""
    _add("snapferry_errors_total", 1, type(error).__name__, _truth(error.transient))


@contextmanager
def requests_of(source: StreamStore, destination: StreamStore) -> Iterator[None]:
    """Count what both stores, newly opened, are sent in the block."""
    try:
        yield
    finally:
        if _metrics:
            for side, store in (("source", source), ("destination", destination)):
                for kind, sent in store.accounting.by_kind().items():
                    for operation, count in sent.items():
                        _add("snapferry_store_requests_total", count, kind, side, operation)


def job_ended(state: str) -> None:
    """Count a job that was brought to its end."""
    _add("snapferry_jobs_ended_total", 1, state)


def _failed(failures: list[Failure]) -> None:
    for (error, transient), count in Counter((f.error, f.transient) for f in failures).items():
        _add("snapferry_errors_total", count, error, _truth(transient))


# Task id -> when it began; as many as run at once in this process.
_started: dict[str, float] = {}


def _task_begins(sender: Any = None, task_id: str = "", **_: Any) -> None:
    if str(getattr(sender, "name", "")).startswith(_OURS):
        _started[task_id] = time.monotonic()


def _task_ended(sender: Any = None, task_id: str = "", state: str | None = None, **_: Any) -> None:
    began = _started.pop(task_id, None)
    if began is None or sender is None:
        return
    _tell("snapferry_task_duration_seconds", "observe", time.monotonic() - began, sender.name)
    _add("snapferry_tasks_total", 1, sender.name, (state or "failure").lower())


def _add(name: str, amount: float, *labels: str) -> None:
    if amount:
        _tell(name, "inc", amount, *labels)


def _tell(name: str, what: str, amount: float, *labels: str) -> None:
    metric = _metrics.get(name)
    if metric is None:
        return
    try:
        getattr(metric.labels(*labels) if labels else metric, what)(amount)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth a batch
        disable(f"{type(error).__name__}: {error}")


def _make(metric: Metric) -> Any:
    import prometheus_client as prometheus

    if metric.kind == "histogram":
        return prometheus.Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=None
        )
    if metric.kind == "gauge":
        # Of the processes that live: a child that is killed takes its share along.
        return prometheus.Gauge(
            metric.name, metric.help, metric.labels, registry=None, multiprocess_mode="livesum"
        )
    return prometheus.Counter(metric.name, metric.help, metric.labels, registry=None)


def _zeros(metric: Metric, tasks: list[str]) -> list[tuple[str, ...]]:
    """Return the labels to export before anything happened: an increase from nothing is not seen as one."""
    if metric.labels == ("error", "transient"):
        return [(kind.__name__, _truth(kind.transient)) for kind in _kinds(StoreError)]
    if metric.labels == ("task", "state"):
        return [(task, state) for task in tasks for state in TASK_STATES]
    return list(metric.zeros)


def _kinds(kind: type[StoreError]) -> list[type[StoreError]]:
    return [one for child in kind.__subclasses__() for one in (child, *_kinds(child))]


def _truth(value: bool) -> str:
    return str(value).lower()
