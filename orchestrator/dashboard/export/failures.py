"""
The failed objects of a job with all their places, from a process of its own.

Only the manifests have the places, and reading them takes much time and memory. The process sends one document at a
time and waits until it is taken.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Self

from pydantic import ValidationError

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.planning.prepare import forget
from snapferry.orchestrator.reporting.documents import letter_document, unreadable_document
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob
from snapferry.workers.settings.environment import InvalidSettings, Settings

log = logging.getLogger(__name__)

# Lists that are made at once. Each has a process with the memory of an orchestrator that plans the job.
AT_ONCE: Final = 2

_END: Final = b""


class Incomplete(Exception):
    """The list ended before its end; the message says why."""


class FailureLists:
    """
    Makes lists of failed objects, at most `AT_ONCE` at a time. Must be entered; its exit ends all of them.

    All methods may be called from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: set[FailureList] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            found = list(self._open)
        for one in found:
            one.close()

    def open(self, job_id: str) -> FailureList | None:
        """Return the list of a job, which must be closed; None while too many are open."""
        with self._lock:
            if len(self._open) >= AT_ONCE:
                return None
            found = FailureList(self._settings, job_id, self._closed)
            self._open.add(found)
            return found

    def _closed(self, found: FailureList) -> None:
        with self._lock:
            self._open.discard(found)


class FailureList:
    """The failed objects of a job. `close` may be called at any time, again, and by another thread."""

    def __init__(self, settings: Settings, job_id: str, on_close: Callable[[FailureList], None]) -> None:
        self._on_close = on_close
        self._lock = threading.Lock()
        self._closed = False
        self._receiver, sender = multiprocessing.Pipe(duplex=False)
        # Spawned, because this process has threads.
        self._process = multiprocessing.get_context("spawn").Process(
            target=send_failures, args=(settings, job_id, sender), name="snapferry-export", daemon=True
        )
        self._process.start()
        # The other end closes with the process.
        sender.close()

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield the documents of the objects. Raises `Incomplete`."""
        while True:
            try:
                found = self._receiver.recv_bytes()
            except (EOFError, OSError) as error:
                raise Incomplete(
                    "the process that reads the manifests ended; see the log of the dashboard"
                ) from error
            if found == _END:
                return
            document = json.loads(found)
            if "incomplete" in document:
                raise Incomplete(document["incomplete"])
            yield document

    def close(self) -> None:
        """Kill the process."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._process.kill()
        self._process.join(10)
        self._receiver.close()
        self._on_close(self)


def send_failures(settings: Settings, job_id: str, sender: Connection) -> None:
    """Send the documents of the failed objects of a job, then `_END`; runs in a process of its own."""
    os.nice(10)
    # Nobody takes any more what is sent after `close`.
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            _send(Jobs(settings, check=False, role="the dashboard"), job_id, sender)
        except (StoreError, SourceChanged, BrokerUnavailable, InvalidSettings) as error:
            _put(sender, {"incomplete": str(error) or type(error).__name__})
        except UnknownJob:
            _put(sender, {"incomplete": "the job's record has expired"})
        except ValidationError:
            _put(sender, {"incomplete": "another version of snapferry submitted the job"})
        else:
            sender.send_bytes(_END)


def _send(jobs: Jobs, job_id: str, sender: Connection) -> None:
    """Send what ``snapferry failures --json`` prints: without places if the source cannot be read."""
    sent = 0
    try:
        for letter in jobs.failures(job_id):
            _put(sender, letter_document(letter))
            sent += 1
    except (StoreError, SourceChanged, InvalidSettings):
        if sent:
            raise
        for letter in jobs.failures(job_id, places=False):
            _put(sender, letter_document(letter, places=False))
    finally:
        forget(job_id)
    for row in jobs.unreadable(job_id):
        _put(sender, unreadable_document(row))


def _put(sender: Connection, document: dict[str, Any]) -> None:
    sender.send_bytes(json.dumps(document).encode())
