"""
The nodes that are known in the broker: those that announced themselves, and those with a mailbox of Celery.

A mailbox is the only sign that an orchestrator of an earlier version leaves.
"""

from __future__ import annotations

import redis

from snapferry.orchestrator.reporting.nodes import Announced
from snapferry.workers.broker.transport import MAILBOXES
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.reachability.worker_roster import WorkerRoster


def known_nodes(client: redis.Redis) -> set[str]:
    """Return the nodes that have a mailbox in the broker: those that run, and those that were killed."""
    ending = ".snapferry.pidbox"
    queues = (str(binding).rpartition("\x16")[2] for binding in client.smembers(MAILBOXES))
    return {queue.removesuffix(ending) for queue in queues if queue.endswith(ending)}


def _orchestrators_known(client: redis.Redis) -> bool:
    """Return whether a node with the name that ``snapferry orchestrator`` gives has a mailbox."""
    return any(node.startswith("orchestrator@") for node in known_nodes(client))


def announced(client: redis.Redis) -> Announced:
    """Return the workers and orchestrators that announced themselves. Raises `redis.exceptions.RedisError`."""
    orchestrators = OrchestratorRoster(client).announced()
    complete = bool(orchestrators) or not _orchestrators_known(client)
    return Announced(WorkerRoster(client).registered(), orchestrators, complete)
