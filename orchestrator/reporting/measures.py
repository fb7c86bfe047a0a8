"""Share, rate and time left of a job, from its counters."""

from __future__ import annotations

import time
from typing import Final

from snapferry.workers.ledger import JobStatus, State

# The largest share of bytes that is shown while objects are left.
ALMOST: Final = 0.99

# Seconds without progress after which a job counts as idle.
IDLE_S: Final = 10.0


def share(status: JobStatus) -> float:
    """
    Return the share of a job that is done, 0.0 to 1.0: of its bytes, or of its objects if they have no bytes.

    It is 1.0 only if every object is done.
    """
    if not status.objects_total:
        return 0.0
    of_objects = status.objects_settled / status.objects_total
    if not status.bytes_total:
        return of_objects
    of_bytes = status.bytes_settled / status.bytes_total
    # The last objects may have few bytes, or none.
    return of_bytes if of_objects >= 1.0 else min(of_bytes, max(ALMOST, of_objects))


def percent(status: JobStatus) -> int:
    """Return the share in percent, rounded down: 100 only if every object is done."""
    # A share such as 0.29 is slightly less than that in binary.
    return int(100 * share(status) + 1e-9)


def rate(status: JobStatus) -> float:
    """Return the bytes done per second since the start of a job, 0.0 if that is not known."""
    elapsed = _elapsed(status)
    return status.bytes_settled / elapsed if elapsed > 0 else 0.0


def seconds_left(status: JobStatus) -> float | None:
    """Return how long the rest takes at the rate so far, None if that is not known."""
    done = share(status)
    if status.state is not State.COPYING or status.paused or status.cancelling or not 0.0 < done < 1.0:
        return None
    if idle_s(status) > IDLE_S:
        # The rate so far does not hold any more.
        return None
    return max(0.0, _elapsed(status)) * (1 - done) / done


def idle_s(status: JobStatus) -> float:
    """Return the seconds since a job last made progress."""
    return time.time() - max(status.moved_at, status.submitted_at)


def _elapsed(status: JobStatus) -> float:
    return (status.ended_at or time.time()) - status.started_at if status.started_at else 0.0
