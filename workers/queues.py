"""
The queues of a fleet, and which of the batches in them are taken first.

Redis knows no priorities: kombu keeps a list for each step of them, and a worker takes from the first list that is
not empty. A batch's step follows from its job's priority, and within that from its number: the first batches of
each job go before the later ones of any other. So a small job waits for the batches that run, and not for those
of a huge one that wait; the huge one has what small ones leave.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

PLAN_QUEUE: Final = "snapferry.plan"
COPY_QUEUE: Final = "snapferry.copy"
"""The queue of all batches whose job names no other."""


class Priority(StrEnum):
    """Which jobs' batches go first. Within a priority small jobs do."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


NAME: Final = r"^([a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?)?$"
"""What a queue may be called: it becomes a part of keys, and of the names of metrics."""

# So many batches of a job go before the later ones of every other, and so many after them before the rest.
_FIRST: Final = 8
_NEXT: Final = 64
_STEPS_EACH: Final = 3

STEPS: Final = tuple(range(_STEPS_EACH * len(Priority)))
"""All steps; batches of the lowest are taken first."""

# What kombu puts between a queue's name and a step in the key of a list.
_SEPARATOR: Final = "\x06\x16"


def step(priority: Priority, number: int) -> int:
    """Return the step of a job's batch with *number*, counted from 0."""
    depth = 0 if number < _FIRST else 1 if number < _NEXT else 2
    return _STEPS_EACH * list(Priority).index(priority) + depth


def copy_queue(name: str) -> str:
    """Return the queue that is called *name* on the command line, "" being the one of all who name none."""
    return f"{COPY_QUEUE}.{name}" if name else COPY_QUEUE


def parking_queue(name: str, job_id: str) -> str:
    """
    Return the queue for those batches of a job that some worker could not copy, because it cannot reach a store.

    Only workers that can reach both stores take batches from it. *name* is that of the job's own queue.
    """
    return f"{copy_queue(name)}.@{job_id}"


def moves(queue: str, priority: Priority) -> list[tuple[str, str]]:
    """Return for each list of *queue* that has batches of another priority the one that has the like of *priority*."""
    found = lists(queue)
    own = range(step(priority, 0), step(priority, 0) + _STEPS_EACH)
    return [(found[each], found[own[each % _STEPS_EACH]]) for each in STEPS if each not in own]


def lists(queue: str) -> list[str]:
    """Return the keys of the lists in Redis that *queue* consists of, in the order in which workers take from them."""
    return [f"{queue}{_SEPARATOR}{one}" if one else queue for one in STEPS]
