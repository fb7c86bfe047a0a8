"""
All roles of a fleet in one process: it takes one message after the other from a real Redis, as a worker of Celery does.

So the order of its writes is the same in every run, and one death is that of every role. A role keeps nothing between
two messages but in Redis and in the stores, so the death of one role alone leaves nothing else.

A message that is to be delivered later waits until no other is left, and `Roles.pass_time` was called.
"""

from __future__ import annotations

import json
from typing import Any, Final

import redis
from celery import Celery
from celery.worker.request import Request

from snapferry.orchestrator.driving.reconcile import reconcile
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import Ledger
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, lists

QUEUES: Final = (PLAN_QUEUE, COPY_QUEUE)

# More rounds than any action needs. Each passes a minute of time.
MOST_ROUNDS: Final = 40
MINUTE_S: Final = 60.0


class Roles:
    """The worker and the orchestrator of *app*. *client* is for what is no step of a role: to look, to pass time."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self._app = app
        self._client = client
        self._later: list[Any] = []
        self._connection = app.connection_for_read()
        self._channel: Any = self._connection.default_channel
        for queue in QUEUES:
            app.amqp.queues[queue](self._channel).declare()

    @property
    def waits(self) -> bool:
        """Whether a message waits for its time."""
        return bool(self._later)

    def drain(self) -> None:
        """Take messages until none is left but those for later."""
        while queue := next((queue for queue in QUEUES if self._waiting(queue)), None):
            message = self._channel.basic_get(queue)
            if message is None:
                continue
            if message.headers.get("eta"):
                self._later.append(message)
            else:
                self._run(message)

    def drain_later(self) -> None:
        """Take the messages that waited for their time."""
        due, self._later = self._later, []
        for message in due:
            self._run(message)

    def reconcile(self) -> None:
        """Do a round of the reconciler."""
        reconcile(self._app, Ledger(self._client, expires_s=3600))

    def _waiting(self, queue: str) -> bool:
        return any(self._client.llen(key) for key in lists(queue))

    def _run(self, message: Any) -> None:
        # As the consumer of Celery does it for a task that is acknowledged after it ended.
        task = self._app.tasks[message.headers["task"]]
        request = Request(
            message,
            app=self._app,
            task=task,
            hostname="all@here",
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            headers=message.headers,
        )
        request.execute()


def redeliver(client: redis.Redis) -> int:
    """Return the messages of a dead process to their queues, as Celery does in time; return how many there were."""
    found: Any = client.hgetall(UNACKED)
    for raw in found.values():
        payload, _, queue = json.loads(raw)
        payload["headers"]["redelivered"] = payload["properties"]["delivery_info"]["redelivered"] = True
        client.rpush(queue, json.dumps(payload))
    lose(client)
    return len(found)


def lose(client: redis.Redis) -> None:
    """Lose the messages of a dead process for good."""
    client.delete(UNACKED, f"{UNACKED}_index")


def pass_time(client: redis.Redis, seconds: float = MINUTE_S) -> None:
    """Let *seconds* pass for everything in Redis that a role waits for: leases, locks, and the idleness of jobs."""
    for key in client.scan_iter("snapferry:*"):
        if key.startswith("snapferry:beat:"):
            # The lock of the scheduler, which renews it.
            continue
        if key.startswith("snapferry:mark:") or key.endswith((":driver", ":taken", ":lock", ":watcher")):
            client.delete(key)
        elif key.endswith(":leases"):
            leases: Any = client.zrange(key, 0, -1, withscores=True)
            for name, ends in leases:
                client.zadd(key, {name: ends - seconds})
        elif client.type(key) == "hash" and (moved := client.hget(key, "moved_at")):
            client.hset(key, "moved_at", float(str(moved)) - seconds)
