"""What the reachability of its stores means for one batch: whether to start it, and where it goes otherwise."""

from __future__ import annotations

from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.queues import parking_queue

from .outage import Unreachable
from .parked_jobs import ParkedJobs
from .sides import sides_of
from .store_problems import StoreProblem, StoreProblems, pause_before_check

# The stores that this process has recorded as reached: the name of the side, and the worker.
_reached: set[tuple[str, str]] = set()
_MAX_REACHED = 10_000


class BatchReachability:
    """
    Whether *worker* can reach the stores of *batch*, as recorded when the worker took the batch.

    Every method raises `redis.exceptions.RedisError` as the ledger does.
    """

    def __init__(self, ledger: Ledger, batch: BatchMessage, worker: str) -> None:
        self._ledger = ledger
        self._batch = batch
        self._worker = worker
        self._sides = sides_of(batch)
        self._problems = StoreProblems(ledger.client)
        self._jobs = ParkedJobs(ledger.client)
        self._known = self._problems.of_batch(batch.job_id, worker, self._sides)

    @property
    def blocked_by(self) -> StoreProblem | None:
        """The problem that makes it useless to start the batch, None if there is none."""
        return next((problem for problem in self._known.problems if not problem.trial), None)

    @property
    def given_up(self) -> bool:
        """Whether the job was given up: its batches fail if a store cannot be reached, and are no longer parked."""
        return bool(self._known.given_up)

    def record(self, unreachable: Unreachable) -> None:
        """Record that the worker cannot reach a store."""
        if unreachable.reached:
            self._problems.record_reached(unreachable.side, self._worker)
        tries = max((problem.tries for problem in self._known.problems), default=0)
        pause_s = pause_before_check(unreachable.kind, tries)
        self._problems.record_failure(
            unreachable.side, self._worker, unreachable.reason, unreachable.kind, pause_s=pause_s
        )

    def park(self) -> str:
        """Record that the job has a parking queue; return its name."""
        name = self._ledger.field(self._batch.job_id, "queue")
        self._jobs.park(self._batch, name)
        return parking_queue(name, self._batch.job_id)

    def failed(self, error: str, store: str, detail: str) -> BatchOutcome:
        """Return the outcome of a batch whose job was given up: every object fails."""
        why = f"{detail} ({self._known.given_up.partition(':')[0]})"
        addresses = self._batch.objects()
        return BatchOutcome(
            failures=[Failure(address, error, store, why, transient=False) for address in addresses]
        )

    def retries_free(self, outcome: BatchOutcome) -> bool:
        """
        Return whether a retry for the transient failures in *outcome* does not count.

        That is so while a store comes and goes, within the patience of the job: then time limits the retries.
        """
        if self.given_up or not outcome.transient_failures or not self._problems.recently_away(self._sides):
            return False
        first = next(failure for failure in outcome.failures if failure.transient)
        _, waited_s = self._jobs.begin_waiting(self._batch.job_id, "flaps", first.store, first.detail)
        return waited_s < self._jobs.state(self._batch.job_id).patience_s

    def record_end(self, outcome: BatchOutcome) -> None:
        """Record the stores that an accounted batch reached, and that its job does not wait for them."""
        if outcome.failures and not outcome.copied:
            return
        source, destination = self._sides
        read = outcome.copied or source == destination
        for side in {source, destination} if read else {destination}:
            if self._known.problems or (side.name, self._worker) not in _reached:
                self._problems.record_copy(side, self._worker)
                if len(_reached) >= _MAX_REACHED:
                    _reached.clear()
                _reached.add((side.name, self._worker))
        if read and (self._known.waits or self.given_up):
            self._jobs.stop_waiting(self._batch.job_id, "waits", "flaps", "given_up")
