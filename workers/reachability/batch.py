"""What a worker's reach means for one batch: whether to begin it, what an end of it says, where it goes otherwise."""

from __future__ import annotations

from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.queues import parking_queue

from .outage import Unreachable
from .records import ReachBook, Trouble, pause_before_check, sides_of

# The stores that this process is known to have reached, by their sides' names and the worker's.
_reached: set[tuple[str, str]] = set()
_REACHED_KEPT = 10_000


class BatchReach:
    """
    The reach of *worker* for the stores of *batch*, as it was when the batch was begun.

    Every method raises `redis.exceptions.RedisError` as the ledger does.
    """

    def __init__(self, ledger: Ledger, batch: BatchMessage, worker: str) -> None:
        self._ledger = ledger
        self._batch = batch
        self._worker = worker
        self._sides = sides_of(batch)
        self._reach = ReachBook(ledger.client)
        self._known = self._reach.of_batch(batch.job_id, worker, self._sides)

    @property
    def blocked_by(self) -> Trouble | None:
        """The trouble for which the batch need not be begun, None if there is none."""
        return next((trouble for trouble in self._known.troubles if not trouble.trial), None)

    @property
    def given_up(self) -> bool:
        """Whether batches of the job fail where their stores are not reached, and are parked no more."""
        return bool(self._known.given_up)

    def note(self, trouble: Unreachable) -> None:
        """Record that the worker does not reach a store."""
        tries = max((one.tries for one in self._known.troubles), default=0)
        pause_s = pause_before_check(trouble.kind, tries)
        self._reach.failed(trouble.side, self._worker, trouble.reason, trouble.kind, pause_s=pause_s)

    def park(self) -> str:
        """Record that the job has a parking queue; return its name."""
        name = self._ledger.field(self._batch.job_id, "queue")
        self._reach.park(self._batch, name)
        return parking_queue(name, self._batch.job_id)

    def failed(self, error: str, store: str, detail: str) -> BatchOutcome:
        """Return the outcome of a batch of a job that was given up."""
        why = f"{detail} ({self._known.given_up.partition(':')[0]})"
        addresses = self._batch.objects()
        return BatchOutcome(
            failures=[Failure(each, error, store, why, transient=False) for each in addresses]
        )

    def costs_nothing(self, outcome: BatchOutcome) -> bool:
        """
        Say whether the passing trouble of some objects costs the batch none of its passes.

        That is so while a store comes and goes, within the patience of the job: time decides then, and not counts.
        """
        book = self._reach
        if self.given_up or not outcome.transient_failures or not book.recently_away(self._sides):
            return False
        first = next(failure for failure in outcome.failures if failure.transient)
        _, waited_s = book.begin_waiting(self._batch.job_id, "flaps", first.store, first.detail)
        return waited_s < book.state(self._batch.job_id).patience_s

    def ended(self, outcome: BatchOutcome) -> None:
        """Record which stores a batch that is accounted for reached, and that its job does not wait for them."""
        if outcome.failures and not outcome.copied:
            return
        source, destination = self._sides
        for side in (source, destination) if outcome.copied else (destination,):
            if self._known.troubles or (side.name, self._worker) not in _reached:
                self._reach.reached(side, self._worker)
                if len(_reached) >= _REACHED_KEPT:
                    _reached.clear()
                _reached.add((side.name, self._worker))
        if outcome.copied and (self._known.waits or self.given_up):
            self._reach.stop_waiting(self._batch.job_id, "waits", "flaps", "given_up")
