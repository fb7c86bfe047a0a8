"""
The throughput of jobs, now and before: bytes that are read and written. Objects that are found present have none.

The ledger has counters, but not their past. They are read every few seconds and kept in memory: the last minutes as
they were read, earlier samples ever more coarsely.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self

from snapferry.orchestrator.reporting.measures import bytes_worked, objects_moved
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus
from snapferry.workers.lifecycle.heartbeat import Heartbeat

log = logging.getLogger(__name__)

SAMPLE_EVERY_S: Final = 1.0

# The current throughput is the mean of the last this many seconds.
CURRENT_S: Final = 15.0

# Samples of a job, how many of the latest are never thinned out, and jobs that are kept.
SAMPLES_KEPT: Final = 240
SAMPLES_FRESH: Final = 90
JOBS_KEPT: Final = 500

# Wait at least this many times as long as the last reading took.
REST_FACTOR: Final = 10


@dataclass(frozen=True)
class Sample:
    """Objects and bytes of a job that were moved by a moment, in seconds since the epoch."""

    at: float
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Throughput:
    """Objects and bytes moved per second, from *begin* to *end* in seconds since the epoch."""

    begin: float
    end: float
    objects: float
    size_bytes: float


class ThroughputHistory:
    """
    Remembers the throughput of jobs. *read* returns the jobs that have not ended.

    Reads them in a thread of its own while it is entered. An outage of the broker leaves a gap. All methods may be
    called from any thread.
    """

    def __init__(self, read: Callable[[], Sequence[JobStatus]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, list[Sample]] = OrderedDict()
        self._open: frozenset[str] = frozenset()
        self._rest_until = 0.0
        self._beat = Heartbeat(self._sample, SAMPLE_EVERY_S)

    def __enter__(self) -> Self:
        self._beat.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        # A broker that does not answer may keep the thread for longer.
        self._beat.end(1)

    def _sample(self) -> None:
        began = time.monotonic()
        if began < self._rest_until:
            return
        try:
            found = self._read()
        except BrokerUnavailable as error:
            log.debug("no throughput sample: %s", error)
            return
        except Exception:
            # The thread must live on; a page will show the same error.
            log.exception("no throughput sample")
            return
        self.add(found, time.time())
        self._rest_until = began + REST_FACTOR * (time.monotonic() - began)

    def add(self, jobs: Sequence[JobStatus], at: float) -> None:
        """Add a sample of all jobs that have not ended, taken at a moment."""
        with self._lock:
            self._open = frozenset(job.job_id for job in jobs)
            for job in jobs:
                samples = self._jobs.setdefault(job.job_id, [])
                self._jobs.move_to_end(job.job_id)
                if samples and at <= samples[-1].at:
                    continue
                samples.append(Sample(at, objects_moved(job), bytes_worked(job)))
                if len(samples) > SAMPLES_KEPT:
                    samples[:] = samples[:-SAMPLES_FRESH:2] + samples[-SAMPLES_FRESH:]
            while len(self._jobs) > max(JOBS_KEPT, len(self._open)):
                self._jobs.popitem(last=False)

    def current(self, job_id: str) -> Throughput | None:
        """Return the current throughput of a job, None if it has ended or has too few samples."""
        with self._lock:
            samples = self._jobs.get(job_id, []) if job_id in self._open else []
            recent = [sample for sample in samples if sample.at >= samples[-1].at - CURRENT_S]
        return _between(recent[0], recent[-1]) if len(recent) > 1 else None

    def current_total(self) -> Throughput | None:
        """Return the current throughput of all open jobs together, None if none is known."""
        with self._lock:
            jobs = self._open
        found = [current for job_id in jobs if (current := self.current(job_id))]
        if not found:
            return None
        return Throughput(
            min(each.begin for each in found),
            max(each.end for each in found),
            sum(each.objects for each in found),
            sum(each.size_bytes for each in found),
        )

    def past(self, job_id: str) -> list[Throughput]:
        """
        Return the throughput of a job at each sample but the first one, oldest first: the last one is the current one.

        Each is a mean of `CURRENT_S`. Workers report a large object in pieces that take seconds at a low limit, so from
        second to second the throughput is now far above the limit and now nothing.
        """
        with self._lock:
            samples = list(self._jobs.get(job_id, ()))
        found, first = [], 0
        for before, sample in pairwise(samples):
            while samples[first].at < min(before.at, sample.at - CURRENT_S):
                first += 1
            found.append(replace(_between(samples[first], sample), begin=before.at))
        return found


def _between(one: Sample, other: Sample) -> Throughput:
    seconds = other.at - one.at
    return Throughput(
        one.at,
        other.at,
        max(0.0, (other.objects - one.objects) / seconds),
        max(0.0, (other.size_bytes - one.size_bytes) / seconds),
    )
