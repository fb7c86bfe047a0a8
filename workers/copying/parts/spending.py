"""
What a worker spends that joins the copy of an object: its requests.

The worker that has the batch counts the bytes of all parts, whoever copied them.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from snapferry.stores.stream_store import StreamStore
from snapferry.workers.copying.transfer.budget import MAX_COST, MILLIONTHS, OBJECTS, costs
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import BatchMessage


class JoinedSpending:
    """
    Counts the requests that a worker sends to the stores of a batch, if the budget of its job limits the cost.

    Both stores must be newly opened.
    """

    def __init__(
        self, ledger: Ledger, batch: BatchMessage, source: StreamStore, destination: StreamStore
    ) -> None:
        budget = ledger.budget(batch.job_id)
        self._budget = budget if budget is not None and budget.max_cost is not None else None
        self._cost = costs(batch, self._budget, source, destination) if self._budget else lambda _: 0.0
        self._ledger, self._batch = ledger, batch
        # A message that is delivered twice is two runs.
        self._run = uuid.uuid4().hex
        self._lock = threading.Lock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Report what the block spends at its end, whatever happens in it."""
        try:
            yield
        finally:
            with suppress(RedisError):
                self.exceeds()
                if self._budget is not None:
                    self._ledger.forget_spending(self._batch, self._run)

    def exceeds(self) -> bool:
        """Report what was spent so far; return whether the job has exceeded its budget. Raises `RedisError`."""
        if self._budget is None:
            return False
        with self._lock:
            cost = round(min(MILLIONTHS * self._cost(0), MAX_COST))
            spent = self._ledger.spend(
                self._batch, self._budget, copied_bytes=0, in_flight=0, objects=0, cost=cost, run=self._run
            )
        return spent.over not in ("", OBJECTS)
