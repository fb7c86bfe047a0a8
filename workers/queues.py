"""
The queues of a fleet, and the order in which workers take batches from them.

Redis has no priorities. Kombu keeps one list for each priority step of a queue, and a worker takes from the first list
that is not empty. The step of a batch follows from the priority of its job, and within that from the batch's number: at
equal priority, the first batches of every job run before the later batches of any job. So a small job waits for the
batches that run, but not for the queued batches of a huge job.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

PLAN_QUEUE: Final = "snapferry.plan"
COPY_QUEUE: Final = "snapferry.copy"
"""The queue of all batches whose job sets no other queue."""


class Priority(StrEnum):
    """The priority of a job. At equal priority, small jobs run before the remainder of large jobs."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


NAME: Final = r"^([a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?)?$"
"""The pattern of a queue's name, which becomes a part of Redis keys and of metrics."""

# The first batches of every job, and the batches after them, each run before the rest of any job.
_FIRST: Final = 8
_NEXT: Final = 64
_STEPS_EACH: Final = 3

STEPS: Final = tuple(range(_STEPS_EACH * len(Priority)))
"""All priority steps. Workers take batches of the lowest step first."""

# Kombu puts this between the name of a queue and a step, in the key of a list.
_SEPARATOR: Final = "\x06\x16"


def step(priority: Priority, number: int) -> int:
    """Return the priority step of the batch with this *number*, counted from 0."""
    depth = 0 if number < _FIRST else 1 if number < _NEXT else 2
    return _STEPS_EACH * list(Priority).index(priority) + depth


def copy_queue(name: str) -> str:
    """Return the queue for a *name* of the command line; "" is the default queue."""
    return f"{COPY_QUEUE}.{name}" if name else COPY_QUEUE


def parking_queue(name: str, job_id: str) -> str:
    """
    Return the queue for the batches of a job that some worker could not copy because it cannot reach a store.

    Only workers that can reach both stores take batches from it. *name* is the name of the job's own queue.
    """
    return f"{copy_queue(name)}.@{job_id}"


def is_parking_queue(name: str) -> bool:
    """Return whether the queue with this *name* is the parking queue of a job."""
    return name.startswith(COPY_QUEUE) and ".@" in name


def moves(queue: str, priority: Priority) -> list[tuple[str, str]]:
    """Return the pairs of lists (from, to) that move all batches of *queue* to *priority*."""
    keys = lists(queue)
    own = range(step(priority, 0), step(priority, 0) + _STEPS_EACH)
    return [(keys[other], keys[own[other % _STEPS_EACH]]) for other in STEPS if other not in own]


def lists(queue: str) -> list[str]:
    """Return the Redis keys of the lists of *queue*, in the order in which workers take from them."""
    return [f"{queue}{_SEPARATOR}{one}" if one else queue for one in STEPS]
