"""
Counters of batches, requests, errors and tasks.

Before `enable` is called, every function returns at once. No function raises: a failure to count must not fail the
work.
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
from snapferry.workers.messages import Action
from snapferry.workers.outcome import BatchOutcome, Failure

from .catalogue import COUNTED, TASK_STATES, Metric, Role

log = logging.getLogger(__name__)

_OURS: Final = "snapferry."

# The name of a metric -> its prometheus_client object. Empty until `enable` is called.
_metrics: dict[str, Any] = {}


def enable(role: Role, tasks: list[str]) -> None:
    """
    Start to count what *role* does, in this process and its forked children.

    *tasks* are the names of the tasks that it runs. Call this once in a process.
    """
    for metric in COUNTED:
        if role in metric.roles:
            _metrics[metric.name] = _make(metric)
            for values in _zeros(metric, tasks):
                _metrics[metric.name].labels(*values)
    signals.task_prerun.connect(_task_begins, weak=False)
    signals.task_postrun.connect(_task_ended, weak=False)


def disable(reason: str) -> None:
    """Stop counting in this process, and log the reason."""
    if _metrics:
        log.error("metrics disabled: %s", reason)
        _metrics.clear()


def delivered(begun: Begun) -> None:
    """Count a delivery of a batch that is not run. The end of a run is counted by `ran`, `stopped` or `gave_up`."""
    checks = (
        (begun.accounted, "repeated"), (begun.stopped or begun.bounded, "stopped"), (begun.paused, "held"),
        (bool(begun.holder), "stepped_aside"),
    )  # fmt: skip
    end = next((end for applies, end in checks if applies), None)
    if end is not None:
        _add("snapferry_batch_deliveries_total", 1, end)


def gave_up(outcome: BatchOutcome, *, end: str = "given_up") -> None:
    """Count a batch that is not run any more, and whose objects are accounted for as failed."""
    _add("snapferry_batch_deliveries_total", 1, end)
    _add("snapferry_objects_total", len(outcome.failures), "failed")
    _failed(outcome.failures)


def parked() -> None:
    """Count a batch that was parked for workers that can reach its stores."""
    _add("snapferry_batch_deliveries_total", 1, "parked")


@contextmanager
def running() -> Iterator[None]:
    """Count a batch as in flight during the block."""
    _update("snapferry_batches_in_flight", "inc", 1)
    try:
        yield
    finally:
        _update("snapferry_batches_in_flight", "dec", 1)


def ran(outcome: BatchOutcome, seconds: float, *, again: bool, action: Action = Action.COPY) -> None:
    """Count the end of a run of a batch. *again*: the batch will be retried for the objects that failed."""
    _add("snapferry_batch_deliveries_total", 1, "retried" if again else "ended")
    _update("snapferry_batch_duration_seconds", "observe", seconds)
    _add(
        "snapferry_copied_bytes_total" if action.writes else "snapferry_verified_bytes_total",
        outcome.bytes_copied,
    )
    _add("snapferry_objects_total", outcome.copied, "copied")
    if not again:
        _add("snapferry_objects_total", outcome.present, "present" if action.writes else "intact")
        _add("snapferry_objects_total", len(outcome.failures), "failed")
    _failed(outcome.failures)


def stopped() -> None:
    """Count a run of a batch that ended because its job was cancelled."""
    _add("snapferry_batch_deliveries_total", 1, "stopped")


def store_error(error: StoreError) -> None:
    """Count an error in a step of an orchestrator."""
    _add("snapferry_errors_total", 1, type(error).__name__, _truth(error.transient))


@contextmanager
def requests_of(source: StreamStore, destination: StreamStore) -> Iterator[None]:
    """Count the requests to both stores in the block. Both must be newly opened."""
    try:
        yield
    finally:
        if _metrics:
            for side, store in (("source", source), ("destination", destination)):
                for kind, sent in store.accounting.by_kind().items():
                    for operation, count in sent.items():
                        _add("snapferry_store_requests_total", count, kind, side, operation)


def job_ended(state: str) -> None:
    """Count a job that ended in this *state*."""
    _add("snapferry_jobs_ended_total", 1, state)


def _failed(failures: list[Failure]) -> None:
    for (error, transient), count in Counter((f.error, f.transient) for f in failures).items():
        _add("snapferry_errors_total", count, error, _truth(transient))


# Task id -> when the task began. One entry for each running task of this process.
_started: dict[str, float] = {}


def _task_begins(sender: Any = None, task_id: str = "", **_: Any) -> None:
    if str(getattr(sender, "name", "")).startswith(_OURS):
        _started[task_id] = time.monotonic()


def _task_ended(
    sender: Any = None, task_id: str = "", state: str | None = None, retval: object = None, **_: Any
) -> None:
    began = _started.pop(task_id, None)
    if began is None or sender is None:
        return
    _update("snapferry_task_duration_seconds", "observe", time.monotonic() - began, sender.name)
    ended = (state or "failure").lower()
    if ended == "failure" and isinstance(retval, tuple(getattr(sender, "throws", None) or ())):
        # Celery shows the task as failed, but no operator needs to look at it: the job's record has the reason.
        ended = "expected_failure"
    _add("snapferry_tasks_total", 1, sender.name, ended)


def _add(name: str, amount: float, *labels: str) -> None:
    if amount:
        _update(name, "inc", amount, *labels)


def _update(name: str, what: str, amount: float, *labels: str) -> None:
    metric = _metrics.get(name)
    if metric is None:
        return
    try:
        getattr(metric.labels(*labels) if labels else metric, what)(amount)
    except Exception as error:  # noqa: BLE001 - no error of a metric may fail a batch
        disable(f"{type(error).__name__}: {error}")


def _make(metric: Metric) -> Any:
    # Every worker imports this module, and few count. The library is slow to import, and optional.
    import prometheus_client as prometheus

    if metric.kind == "histogram":
        return prometheus.Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=None
        )
    if metric.kind == "gauge":
        # The sum over living processes: the value of a killed child does not count any more.
        return prometheus.Gauge(
            metric.name, metric.help, metric.labels, registry=None, multiprocess_mode="livesum"
        )
    return prometheus.Counter(metric.name, metric.help, metric.labels, registry=None)


def _zeros(metric: Metric, tasks: list[str]) -> list[tuple[str, ...]]:
    """Return the labels to export as 0: Prometheus does not see the first value of a metric as an increase."""
    if metric.labels == ("error", "transient"):
        return [(kind.__name__, _truth(kind.transient)) for kind in _kinds(StoreError)]
    if metric.labels == ("task", "state"):
        return [(task, state) for task in tasks for state in TASK_STATES]
    return list(metric.zeros)


def _kinds(kind: type[StoreError]) -> list[type[StoreError]]:
    return [one for child in kind.__subclasses__() for one in (child, *_kinds(child))]


def _truth(value: bool) -> str:
    return str(value).lower()
