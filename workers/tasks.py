"""
The worker's Celery task: decode, call, account, translate errors into retries.

What is done is in `workers.transfer`; what is known of it in `workers.ledger`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery import Celery, Task

from stores.errors import StoreError, StoreFault
from stores.urls import open_store

from .connection import client
from .describe import describe_outcome
from .ledger import Ledger
from .messages import BatchMessage, StoreRef
from .settings import Settings
from .transfer import BatchOutcome, Cancelled, Failure, copy_batch

log = logging.getLogger(__name__)

# Passes over a batch whose stores had passing trouble, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2

# A batch that was begun this often and never ended takes its workers down with it.
MAX_BEGUN = 10

# How often a running batch reports, and so how soon it sees a cancel.
REPORT_EVERY_S = 0.25


def register(app: Celery, settings: Settings) -> None:
    """Add the worker's tasks to *app*."""

    @app.task(shared=False, name="snapferry.copy_batch", bind=True, max_retries=MAX_RETRIES)
    def copy(self: Task[..., Any], message: dict[str, Any]) -> str:
        return run_batch(self, BatchMessage.model_validate(message), ledger_of(settings))


def ledger_of(settings: Settings) -> Ledger:
    """Return the ledger on this process's connection to the broker."""
    assert settings.broker_url is not None  # make_app refuses settings without one
    return Ledger(client(settings.broker_url), expires_s=settings.job_expires)


def run_batch(task: Task[..., Any], batch: BatchMessage, ledger: Ledger) -> str:
    """
    Copy one delivered batch and account for it; return the outcome in words.

    Raises `celery.exceptions.Retry` when some objects met passing trouble and
    passes are left. After the last pass they are accounted as failed.
    """
    begun = ledger.begin(batch)
    if begun.accounted:
        return "was already done"
    if begun.cancelled:
        return "cancelled"
    if begun.times > MAX_BEGUN:
        outcome = _all_failed(batch, _never_ended())
        ledger.account(batch, outcome)
        return describe_outcome(outcome, 0.0)
    started = time.monotonic()
    try:
        outcome = _copy(batch, ledger)
    except Cancelled:
        return "cancelled"
    if outcome.transient_failures and task.request.retries < MAX_RETRIES:
        first = next(failure for failure in outcome.failures if failure.transient)
        pause = RETRY_BASE_S * 2**task.request.retries
        log.warning("job %s: batch %s retries in %d s: %s", batch.job_id, batch.number, pause, first.detail)
        raise task.retry(countdown=pause, exc=RuntimeError(first.detail))
    ledger.account(batch, outcome)
    return describe_outcome(outcome, time.monotonic() - started)


def _copy(batch: BatchMessage, ledger: Ledger) -> BatchOutcome:
    try:
        return copy_batch(
            _open(batch.source),
            _open(batch.destination),
            batch.objects(),
            _Report(batch, ledger),
            concurrency=batch.concurrency,
        )
    except StoreError as error:
        return _all_failed(batch, error)


def _open(ref: StoreRef) -> Any:
    return open_store(ref.url, ref.objects_url)


def _all_failed(batch: BatchMessage, error: StoreError) -> BatchOutcome:
    return BatchOutcome(failures=[Failure.of(address, error) for address in batch.objects()])


def _never_ended() -> StoreError:
    return StoreFault(
        "", "", f"its batch was begun {MAX_BEGUN} times and never ended; did its workers run out of memory?"
    )


class _Report:
    """Tell the ledger how a batch gets on, at a gentle pace, and stop the batch when the job is cancelled."""

    def __init__(self, batch: BatchMessage, ledger: Ledger) -> None:
        self._batch = batch
        self._ledger = ledger
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._due = time.monotonic() + REPORT_EVERY_S

    def begin(self, needed: int, needed_bytes: int) -> None:
        self._ledger.need(self._batch, objects=needed, size_bytes=needed_bytes)

    def advance(self, objects: int, size_bytes: int) -> None:
        with self._lock:
            self._objects += objects
            self._bytes += size_bytes
            now = time.monotonic()
            if now < self._due:
                return
            self._due = now + REPORT_EVERY_S
            counted = (self._objects, self._bytes)
        if self._ledger.progress(self._batch, objects=counted[0], size_bytes=counted[1]):
            raise Cancelled
