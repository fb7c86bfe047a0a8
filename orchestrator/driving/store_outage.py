"""
What an orchestrator does about a store that gives no answer: wait within the job's patience, or give up.

A step that failed is queued again, so that no process waits. The store is asked
by a check: if it answers, one manifest or one listing is in trouble, and the step is
tried a few times. If it does not, time alone decides.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from typing import Final, Self

from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.errors import InvalidStoreURL, NotAllowed, StoreError, StoreNotFound
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.messages import JobRequest
from snapferry.workers.reachability.outage import check, emptied, open_side
from snapferry.workers.reachability.records import ReachBook, StoreSide, sides_of

log = logging.getLogger(__name__)

# Pauses between two tries of a step while a store is away: a quarter of the time so far, within these.
SHORTEST_PAUSE_S: Final = 1.5
LONGEST_PAUSE_S: Final = 5.0

# A step makes sure of its stores so often.
SILENT_S: Final = 15.0

# The field of a job's record that says what its orchestrator waits for.
STEP_WAITS: Final = "step_waits"

# The field of a job's record that says that both of its stores have answered.
ANSWERED: Final = "answered"


@dataclass(frozen=True)
class Wait:
    """
    What to do about a store's trouble.

    *pause_s*: try again after so many seconds, without counting the try; None: do as for the trouble of one object.
    *over*: why it is not waited for any more, "" if it is.
    """

    pause_s: float | None = None
    over: str = ""


def wait_for(ledger: Ledger, job_id: str, error: StoreError, access: AccessPolicy) -> Wait:
    """Return what to do about *error*, which ended a step of a job. Asks the store, for 10 seconds at most."""
    try:
        request = ledger.request(job_id)
        if not may_wait_for(ledger, request, error):
            return Wait()
    except (UnknownJob, ValidationError):
        return Wait()
    side = _blamed(request, error, access)
    found = (
        (check(side, access) or emptied(ReachBook(ledger.client), job_id, side, access))
        if side is not None
        else None
    )
    if found is None or not _is_away(found):
        return Wait()
    _, waited_s = ReachBook(ledger.client).begin_waiting(job_id, STEP_WAITS, found.store, found.detail)
    if waited_s >= request.patience:
        return Wait(over=f"{type(found).__name__}: {found}; waited for {waited_s:.0f} s")
    pause_s = min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, waited_s / 4))
    return Wait(pause_s=pause_s * random.uniform(0.8, 1.0))


def may_wait_for(ledger: Ledger, request: JobRequest, error: StoreError) -> bool:
    """
    Say whether a job may wait for the store that *error* is of.

    Not if the stores have never answered in the life of the job, unless it was told to: they are more likely
    misspelt than away.
    """
    if not _is_away(error):
        return False
    answered = ledger.field(request.job_id, ANSWERED) != ""
    return answered or (request.waits_at_start and error.transient)


def stop_waiting(ledger: Ledger, job_id: str) -> None:
    """Record that the orchestrator waits for no store."""
    ReachBook(ledger.client).stop_waiting(job_id, STEP_WAITS)


class StepWatch:
    """
    Looks after the stores of a job while a step of it runs, for a ``with`` block.

    A step that takes long may hang in a read of a store that is silent. Then the job's record says which store it
    waits for, before the read fails.
    """

    def __init__(self, ledger: Ledger, request: JobRequest, access: AccessPolicy = STRICT) -> None:
        self._access = access
        self._ledger = ledger
        self._request = request
        self._looking: threading.Thread | None = None
        self._said = self._over = False
        self._heart = Heartbeat(self._beat, SILENT_S)

    def __enter__(self) -> Self:
        self._heart.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heart.__exit__(*raised)
        self._over = True

    def _beat(self) -> None:
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, name="check-stores", daemon=True)
            self._looking.start()

    def _look(self) -> None:
        answers = [check(side, self._access) for side in sides_of(self._request)]
        found = next((error for error in answers if error is not None and _is_away(error)), None)
        try:
            if found is not None and not self._over:
                self._said = True
                ReachBook(self._ledger.client).begin_waiting(
                    self._request.job_id, STEP_WAITS, found.store, found.detail
                )
            elif found is None and self._said and not self._over:
                self._said = False
                stop_waiting(self._ledger, self._request.job_id)
        except RedisError as error:
            log.warning("cannot record that a store is away: %s", error)


def _is_away(error: StoreError) -> bool:
    """Say whether *error* can be that of a store that is away; of a directory, a mount that is."""
    is_bucket = error.store.startswith("s3://")
    return error.transient or (isinstance(error, StoreNotFound) and not is_bucket)


def _blamed(request: JobRequest, error: StoreError, access: AccessPolicy) -> StoreSide | None:
    for side in sides_of(request):
        try:
            store = open_side(side, access)
        except (InvalidStoreURL, NotAllowed):
            continue
        if error.store in {backend.label for backend, _ in store.pools}:
            return side
    return None
