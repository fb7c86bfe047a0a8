"""One run of a batch: open the stores, apply the limits and the budget, do its action, and report to the ledger."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from snapferry.stores.access import AccessPolicy
from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import Begun, Directive, Ledger
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.limits import LimitStore, Throttle
from snapferry.workers.messages import BatchMessage, StoreRef
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.reachability.batch import BatchReachability
from snapferry.workers.reachability.outage import StoreWatch
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.sides import StoreSide, sides_of
from snapferry.workers.reachability.store_check import missing_store, open_side
from snapferry.workers.telemetry.metrics import counters

from .actions import RUNNERS, BatchContext
from .batch_report import BatchReport
from .parts.owner import Ask
from .transfer.budget import within_budget
from .transfer.sequential import SEQUENTIAL_AFTER, run_sequentially, unexpected_failure

log = logging.getLogger(__name__)

THROTTLED_AT_ONCE_BYTES: Final = 8 * 1024 * 1024
"""Larger objects are throttled from their start, so that a limit which is set while one is copied slows it down."""


@dataclass(frozen=True)
class CopyRun:
    """
    A run of *batch*, leased by *holder*, by a process that may open what *access* allows.

    *ask* asks other workers to join the copy of a large object. *last*: a transient error will not be retried.
    """

    batch: BatchMessage
    ledger: Ledger
    holder: str
    reachability: BatchReachability
    begun: Begun
    access: AccessPolicy
    ask: Ask
    last: bool = False

    @property
    def worker(self) -> str:
        """The name of the worker."""
        return self.holder.partition("@")[2]

    def copy(self) -> tuple[BatchOutcome, float]:
        """
        Run the batch and report to the ledger meanwhile; return the outcome and the seconds it took.

        Raises `BatchStopped`, `Unreachable`, and `redis.exceptions.RedisError`. Some objects may have been copied
        then. May be repeated.
        """
        started = time.monotonic()
        with (
            counters.running(),
            BatchReport(
                self.batch,
                self.ledger,
                self.holder,
                self.reachability,
                self._abandon,
                self.access,
                submitted=self.begun.submitted,
            ) as report,
            interruptible(report.check),
        ):
            outcome = self._copy(report)
            report.stores.confirm(outcome.failures)
        self.ledger.note_confirmed(self.batch.job_id, outcome.confirmed)
        return outcome, time.monotonic() - started

    def _abandon(self, directive: Directive) -> None:
        """End the lease of a batch that does not stop although it should, and the process that hangs."""
        log.warning("batch abandoned: it does not stop")
        if directive is Directive.HOLD:
            self.ledger.hold(self.batch, self.holder)
        else:
            self.ledger.release(self.batch, self.holder)
        shutdown.end_stuck_process()

    def _copy(self, report: BatchReport) -> BatchOutcome:
        batch, begun, stores = self.batch, self.begun, report.stores
        objects = batch.objects()
        try:
            source, destination = (self._open(side, stores) for side in sides_of(batch))
            stores.opened(source, destination)
            # Waits for a limit check from time to time whether the batch is still wanted.
            still_wanted = partial(report.advance, 0, 0)
            with (
                counters.requests_of(source, destination),
                Throttle(
                    LimitStore(self.ledger.client),
                    batch.job_id,
                    batch.source,
                    batch.destination,
                    still_wanted,
                    run=self.holder,
                    reads_destination=batch.action.at_destination,
                    may_start=report.check_start,
                ) as throttle,
                within_budget(self.ledger, batch, source, destination),
            ):
                throttle.attach(
                    source, destination, at_once=max(batch.sizes, default=0) > THROTTLED_AT_ONCE_BYTES
                )
                limit = report.semaphore = throttle.semaphore
                run = RUNNERS[batch.action](
                    BatchContext(
                        batch,
                        self.ledger,
                        partial(self._open_source, throttle),
                        self.worker,
                        self.ask,
                        self.last,
                        begun.submitted,
                    )
                )
                if begun.times <= SEQUENTIAL_AFTER or len(objects) == 1:
                    try:
                        return run(
                            source,
                            destination,
                            objects,
                            report,
                            concurrency=batch.concurrency,
                            abort_unfinished=begun.interrupted,
                            limit=limit,
                            outages=stores,
                        )
                    except (StoreError, RedisError):
                        raise
                    except Exception:
                        log.exception("uncaught exception; the objects of the batch are run one by one")
                positions = batch.positions_by_address()
                return run_sequentially(
                    run,
                    source,
                    destination,
                    objects,
                    report,
                    deaths={
                        address: begun.deaths.get(position, 0) for address, position in positions.items()
                    },
                    note_current=lambda address: self.ledger.note_current_object(
                        batch, self.holder, positions[address]
                    ),
                    limit=limit,
                    outages=stores,
                )
        except StoreError as error:
            stores.batch_failed(error)
            return BatchOutcome(failures=[Failure.of(address, error) for address in objects])
        except RedisError:
            raise
        except Exception as error:
            log.exception("uncaught exception; all objects of the batch fail")
            return BatchOutcome(
                failures=[Failure.of(address, unexpected_failure(error)) for address in objects]
            )

    def _open_source(self, throttle: Throttle, ref: StoreRef) -> StreamStore:
        store = open_side(StoreSide(ref, writing=False), self.access)
        throttle.attach_further(ref, store)
        return store

    def _open(self, side: StoreSide, stores: StoreWatch) -> StreamStore:
        try:
            store = open_side(side, self.access)
            parked = ParkedJobs(self.ledger.client)
            if gone := missing_store(parked, self.batch.job_id, side, self.access, store):
                raise gone
        except StoreError as error:
            stores.open_failed(side, error)
        return store
