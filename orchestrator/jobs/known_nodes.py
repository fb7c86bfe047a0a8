"""
The nodes that are known in the broker: those that announced themselves, and those with a mailbox of Celery.

A mailbox is the only sign that an orchestrator of an earlier version leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import redis
from redis.exceptions import ResponseError

from snapferry.orchestrator.reporting.nodes import Announced
from snapferry.workers.broker.transport import MAILBOXES
from snapferry.workers.ledger.damage import is_wrong_type
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.reachability.worker_roster import WorkerRoster

_Read = TypeVar("_Read")


def known_nodes(client: redis.Redis) -> set[str]:
    """Return the nodes that have a mailbox in the broker: those that run, and those that were killed."""
    ending = ".snapferry.pidbox"
    queues = (str(binding).rpartition("\x16")[2] for binding in client.smembers(MAILBOXES))
    return {queue.removesuffix(ending) for queue in queues if queue.endswith(ending)}


def _orchestrators_known(client: redis.Redis) -> bool:
    """Return whether a node with the name that ``snapferry orchestrator`` gives has a mailbox."""
    return any(node.startswith("orchestrator@") for node in known_nodes(client))


def announced(client: redis.Redis) -> Announced:
    """
    Return the workers and orchestrators that announced themselves. Raises `redis.exceptions.RedisError`.

    A roster that another program damaged counts as unknown: no command depends on it.
    """
    orchestrators = _unless_damaged(OrchestratorRoster(client).announced)
    mailboxes = _unless_damaged(lambda: _orchestrators_known(client))
    workers = _unless_damaged(WorkerRoster(client).registered)
    known = orchestrators is not None and workers is not None
    complete = known and (bool(orchestrators) or mailboxes is False)
    return Announced(workers or [], orchestrators or {}, complete)


def processes_of(client: redis.Redis, queue: str) -> int:
    """
    Return how many processes the live workers that serve *queue* have together, 0 if that is not known.

    It is not known if a worker is of an earlier version, which does not say it. Raises `redis.exceptions.RedisError`,
    but not for a damaged roster.
    """
    return _unless_damaged(lambda: WorkerRoster(client).all_processes(queue)) or 0


def _unless_damaged(read: Callable[[], _Read]) -> _Read | None:
    try:
        return read()
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        return None
