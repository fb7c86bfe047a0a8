"""What follows from jobs that have ended, for mirrors and stores."""

from __future__ import annotations

from typing import Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.ledger import FreshnessLedger, JobStatus, Ledger, State
from snapferry.workers.ledger.keys import MIRROR
from snapferry.workers.limits import store_id
from snapferry.workers.messages import Action

# Jobs that are settled in one step.
PAGE: Final = 500


def settle_ended(ledger: Ledger, freshness: FreshnessLedger) -> int:
    """
    Record the successes of mirrors and stores that follow from jobs that have ended; return how many jobs there were.

    A job that is done and wrote to its destination is a success of that store, and of the mirror that queued the job
    or one that it continues. Dry runs are none. May be called again; one process at a time should call it.
    """
    settled = 0
    while ended := freshness.ended_jobs(PAGE):
        statuses = [status for status in ledger.statuses(ended) if not status.dry_run and status.ended_at]
        done = [status for status in statuses if status.state is State.DONE]
        schedules = freshness.schedules_of(status.job_id for status in done)
        mirrors: dict[str, float] = {}
        stores: dict[str, float] = {}
        for status in done:
            kind, _, name = schedules.get(status.job_id, "").partition(":")
            if kind == MIRROR:
                mirrors[name] = max(mirrors.get(name, 0.0), status.ended_at)
            if (store := _written_store(status)) is not None:
                stores[store] = max(stores.get(store, 0.0), status.ended_at)
        untold = {status.job_id: status.ended_at for status in statuses}
        freshness.settle(ended, untold=untold, mirrors=mirrors, stores=stores)
        settled += len(ended)
    return settled


def _written_store(status: JobStatus) -> str | None:
    """Return the id of the store that a job wrote to, None if it wrote to none."""
    if not status.action.writes or status.action is Action.PULL:
        return None
    try:
        return store_id(status.destination)
    except InvalidStoreURL:
        # A store of a plug-in that this process lacks.
        return None
