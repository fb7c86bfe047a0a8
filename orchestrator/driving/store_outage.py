"""
What an orchestrator does about a store that does not answer: wait within the job's patience, or fail the job.

A step that failed is queued again, so no process waits. A check asks the store. If the store answers, the
problem concerns one manifest or one listing, and the step is retried a few times. If not, only time decides.

A store that answered the job before and now refuses this orchestrator may refuse it alone: its clock may be wrong. So
another orchestrator may take the step, for a minute.
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
from snapferry.stores.errors import (
    AccessDenied,
    ClockWrong,
    InvalidStoreURL,
    NotAllowed,
    StoreError,
    StoreNotFound,
)
from snapferry.stores.urls import is_local
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.messages import JobSpec
from snapferry.workers.reachability.giving_up import RETURN_S
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.sides import StoreSide, sides_of
from snapferry.workers.reachability.store_check import check, missing_store, open_side

log = logging.getLogger(__name__)

# Bounds of the pause between two tries of a step while a store is down. The pause is a quarter of the time so far.
SHORTEST_PAUSE_S: Final = 1.5
LONGEST_PAUSE_S: Final = 5.0

# Seconds between two checks of the stores while a step runs.
CHECK_S: Final = 15.0

# The field of a job's record that names the store for which its orchestrator waits.
STEP_WAITS: Final = "step_waits"

# The field of a job's record that is set once both of its stores have answered.
ANSWERED: Final = "answered"


@dataclass(frozen=True)
class Wait:
    """
    What to do about a store's error.

    *pause_s*: try again after this many seconds, without counting the try; None: treat it as the error of one object.
    *over*: why the job waits no longer, "" if it waits.
    """

    pause_s: float | None = None
    over: str = ""


def wait_for(ledger: Ledger, job_id: str, error: StoreError, access: AccessPolicy) -> Wait:
    """Return what to do about *error*, which ended a step of a job. Asks the store, for 10 seconds at most."""
    try:
        spec = ledger.spec(job_id)
        if not may_wait_for(ledger, spec, error):
            return Wait()
    except (UnknownJob, ValidationError):
        return Wait()
    side = _side_of(spec, error, access)
    found = (
        (check(side, access) or missing_store(ParkedJobs(ledger.client), job_id, side, access))
        if side is not None
        else None
    )
    if found is None or not (_is_outage(found) or _is_refusal(found)):
        return Wait()
    _, waited_s = ParkedJobs(ledger.client).begin_waiting(job_id, STEP_WAITS, found.store, found.detail)
    if _is_refusal(found) and waited_s >= min(RETURN_S, spec.patience):
        return Wait()
    if waited_s >= spec.patience:
        return Wait(over=f"{type(found).__name__}: {found}; waited for {waited_s:.0f} s")
    pause_s = min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, waited_s / 4))
    return Wait(pause_s=pause_s * random.uniform(0.8, 1.0))


def may_wait_for(ledger: Ledger, spec: JobSpec, error: StoreError) -> bool:
    """
    Return whether a job may wait for the store of *error*.

    It may not if its stores have never answered, unless it was told to: they are more likely misspelt than down. It
    never waits for a store that has refused it from the beginning, unless only the clock of this machine is wrong: then
    another orchestrator may take the job, or the clock may be set. Raises `redis.exceptions.RedisError`.
    """
    if not (_is_outage(error) or _is_refusal(error)):
        return False
    answered = ledger.field(spec.job_id, ANSWERED) != ""
    if answered or (spec.waits_at_start and (error.transient or isinstance(error, ClockWrong))):
        return True
    return isinstance(error, ClockWrong) and OrchestratorRoster(ledger.client).running() > 1


def stop_waiting(ledger: Ledger, job_id: str) -> None:
    """Record that the orchestrator does not wait for a store."""
    ParkedJobs(ledger.client).stop_waiting(job_id, STEP_WAITS)


class StepWatch:
    """
    Checks the stores of a job while a step of it runs, for a ``with`` block.

    A step may hang in a read of a store that does not answer. Then the job's record names the store, before the read
    fails.
    """

    def __init__(self, ledger: Ledger, spec: JobSpec, access: AccessPolicy = STRICT) -> None:
        self._access = access
        self._ledger = ledger
        self._spec = spec
        self._checking: threading.Thread | None = None
        self._recorded = self._over = False
        self._heart = Heartbeat(self._beat, CHECK_S)

    def __enter__(self) -> Self:
        self._heart.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heart.__exit__(*raised)
        self._over = True

    def _beat(self) -> None:
        if self._checking is None or not self._checking.is_alive():
            self._checking = threading.Thread(target=self._check, name="check-stores", daemon=True)
            self._checking.start()

    def _check(self) -> None:
        answers = [check(side, self._access) for side in sides_of(self._spec)]
        found = next((error for error in answers if error is not None and _is_outage(error)), None)
        try:
            if found is not None and not self._over:
                self._recorded = True
                ParkedJobs(self._ledger.client).begin_waiting(
                    self._spec.job_id, STEP_WAITS, found.store, found.detail
                )
            elif found is None and self._recorded and not self._over:
                self._recorded = False
                stop_waiting(self._ledger, self._spec.job_id)
        except RedisError as error:
            log.warning("cannot record a store outage: %s", error)


def _is_outage(error: StoreError) -> bool:
    """Return whether *error* can be that of a store that is down or, for a directory, of a mount that is gone."""
    return error.transient or (isinstance(error, StoreNotFound) and is_local(error.store))


def _is_refusal(error: StoreError) -> bool:
    """Return whether *error* is a store's refusal, which may end without a change of this process's configuration."""
    return isinstance(error, AccessDenied) and not isinstance(error, NotAllowed)


def _side_of(spec: JobSpec, error: StoreError, access: AccessPolicy) -> StoreSide | None:
    """Return the store of the job that *error* comes from, None for neither."""
    for side in sides_of(spec):
        try:
            store = open_side(side, access)
        except (InvalidStoreURL, NotAllowed):
            continue
        if error.store in store.labels:
            return side
    return None
