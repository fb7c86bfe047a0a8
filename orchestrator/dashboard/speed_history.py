"""
How fast jobs get on, now and before.

The ledger has counters, not their past. They are looked at every few seconds,
and what they were is kept in memory, in bounded measure: the last minutes as
they were seen, what came before ever more coarsely.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus
from snapferry.workers.lifecycle.heartbeat import Heartbeat

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0

# What is called the speed of now is that of the last so many seconds.
NOW_S: Final = 15.0

# Samples of a job, how many of the latest are never thinned out, and jobs that are kept.
SAMPLES_KEPT: Final = 240
SAMPLES_FRESH: Final = 90
JOBS_KEPT: Final = 500

# Between two rounds passes at least so many times what the last one took.
LEISURE: Final = 10


@dataclass(frozen=True)
class Sample:
    """What of a job was settled at a moment, in seconds since the epoch."""

    at: float
    objects: int
    size_bytes: int


@dataclass(frozen=True)
class Speed:
    """Objects and bytes settled in a second, and when: from the one to the other second since the epoch."""

    begin: float
    end: float
    objects: float
    size_bytes: float


class Pace:
    """
    Remembers how fast jobs get on. *ask* returns the jobs that have not ended.

    Looks at them from a thread of its own while it is entered. A broker that is
    away leaves a gap. All methods may be called from any thread.
    """

    def __init__(self, ask: Callable[[], Sequence[JobStatus]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, list[Sample]] = OrderedDict()
        self._open: frozenset[str] = frozenset()
        self._rest_until = 0.0
        self._beat = Heartbeat(self._look, LOOK_EVERY_S)

    def __enter__(self) -> Self:
        self._beat.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._beat.__exit__(*raised)

    def _look(self) -> None:
        began = time.monotonic()
        if began < self._rest_until:
            return
        try:
            found = self._ask()
        except BrokerUnavailable as error:
            log.debug("no look at the jobs: %s", error)
            return
        except Exception:
            # The thread must go on; what this is, a page will say as well.
            log.exception("no look at the jobs")
            return
        self.note(found, time.time())
        self._rest_until = began + LEISURE * (time.monotonic() - began)

    def note(self, jobs: Sequence[JobStatus], at: float) -> None:
        """Note how all jobs that have not ended stand at a moment."""
        with self._lock:
            self._open = frozenset(job.job_id for job in jobs)
            for job in jobs:
                samples = self._jobs.setdefault(job.job_id, [])
                self._jobs.move_to_end(job.job_id)
                if samples and at <= samples[-1].at:
                    continue
                samples.append(Sample(at, job.objects_settled, job.bytes_settled))
                if len(samples) > SAMPLES_KEPT:
                    samples[:] = samples[:-SAMPLES_FRESH:2] + samples[-SAMPLES_FRESH:]
            while len(self._jobs) > max(JOBS_KEPT, len(self._open)):
                self._jobs.popitem(last=False)

    def now(self, job_id: str) -> Speed | None:
        """Return the job's speed of now, None if it is not open or was not looked at for long enough."""
        with self._lock:
            samples = self._jobs.get(job_id, []) if job_id in self._open else []
            recent = [sample for sample in samples if sample.at >= samples[-1].at - NOW_S]
        return _between(recent[0], recent[-1]) if len(recent) > 1 else None

    def of_all(self) -> Speed | None:
        """Return the speed of now of all open jobs together, None if none is known."""
        with self._lock:
            jobs = self._open
        found = [speed for job_id in jobs if (speed := self.now(job_id))]
        if not found:
            return None
        return Speed(
            min(speed.begin for speed in found),
            max(speed.end for speed in found),
            sum(speed.objects for speed in found),
            sum(speed.size_bytes for speed in found),
        )

    def past(self, job_id: str) -> list[Speed]:
        """Return the job's speeds, one after the other, as far as they are known."""
        with self._lock:
            samples = list(self._jobs.get(job_id, ()))
        return [_between(one, other) for one, other in pairwise(samples)]


def _between(one: Sample, other: Sample) -> Speed:
    seconds = other.at - one.at
    return Speed(
        one.at,
        other.at,
        max(0.0, (other.objects - one.objects) / seconds),
        max(0.0, (other.size_bytes - one.size_bytes) / seconds),
    )
