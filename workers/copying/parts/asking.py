"""Messages that ask other processes of workers to join the copy of an object."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery import Task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.stores.address import Address, digests_of
from snapferry.stores.text.format import size as in_words
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import BatchMessage, encode_digests
from snapferry.workers.queues import COPY_QUEUE
from snapferry.workers.reachability.worker_roster import WorkerRoster

log = logging.getLogger(__name__)

COPY_PARTS: Final = "snapferry.copy_parts"

# The most processes to ask, and the fewest parts for each of them.
MOST_ASKED: Final = 15
PARTS_EACH: Final = 4

# Seconds between two rounds of messages. A later round asks processes that came later.
ASK_AGAIN_S: Final = 60.0


def message_for(batch: BatchMessage, address: Address) -> BatchMessage:
    """Return the message about one object of *batch*."""
    position = batch.positions_by_address()[address]
    return batch.model_copy(
        update={
            "addresses": encode_digests(digests_of([address])),
            "sizes": (batch.objects()[address],),
            "positions": (position,),
        }
    )


class Asking:
    """
    Asks other workers to join the copies of objects of *batch*, by messages to the queue that its task came from.

    Losing all of these messages loses nothing: the worker that asks copies all parts that no other worker copies.
    """

    def __init__(self, task: Task[..., Any], batch: BatchMessage, ledger: Ledger) -> None:
        info = getattr(task.request, "delivery_info", None) or {}
        self._task = task
        self._batch = batch
        self._ledger = ledger
        self._queue = str(info.get("routing_key") or COPY_QUEUE)
        self._priority = info.get("priority")
        self._asked_at = float("-inf")

    def ask(self, address: Address, *, parts: int, joined: int) -> None:
        """
        Ask one process for every `PARTS_EACH` of the *parts*, minus the processes that have *joined*.

        Does nothing if some were asked a moment ago, and while messages wait in the queue. Never raises.
        """
        if time.monotonic() - self._asked_at < ASK_AGAIN_S:
            return
        again = self._asked_at > float("-inf")
        self._asked_at = time.monotonic()
        try:
            others = WorkerRoster(self._ledger.client).processes(self._queue) - 1
            # Each of them counts as an object in flight.
            allowed = MOST_ASKED if self._batch.concurrency is None else self._batch.concurrency - 1
            wanted = min(others, parts // PARTS_EACH, MOST_ASKED, allowed) - joined
            if wanted <= 0 or (again and not self._ledger.is_queue_empty(self._queue)):
                return
            message = message_for(self._batch, address)
            for _ in range(wanted):
                self._send(message, address)
        except (RedisError, OperationalError) as error:
            log.warning("cannot ask other workers to copy parts: %s", error)
        else:
            log.info("%d other processes asked to copy parts", wanted)

    def _send(self, message: BatchMessage, address: Address) -> None:
        signature = self._task.app.signature(
            COPY_PARTS, args=(message.model_dump(exclude=message.new_defaults()),), immutable=True
        )
        shown = (
            f"job {short(message.job_id)} · parts of object {short(address)}… · {in_words(message.sizes[0])}"
        )
        options = {} if self._priority is None else {"priority": self._priority}
        signature.set(argsrepr=shown, kwargsrepr="", queue=self._queue, **options).apply_async()
