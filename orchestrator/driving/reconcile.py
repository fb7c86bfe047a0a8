"""
Look after jobs that nobody drives on: the cure for chords that never call back, and for dead machines.

Celery can lose a chord, a message can die with the worker that held it, and an
orchestrator can die in the middle of a step. All of that shows in the ledger:
a lease that ran out, a job that wants to be driven and is not, a job with
nothing on its way. One orchestrator at a time looks, every few seconds, and
queues a look at each job that needs one; what is to be done is decided there.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.stores.text.format import counted
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger, Standing, State, UnknownJob, UnreadableJob
from snapferry.workers.queues import PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import fields

from .dispatch import look_after
from .lost_batches import STALL_S

log = logging.getLogger(__name__)

# Between two rounds, and how long a job that was queued for a look is left alone.
ROUND_S: Final = 5
LOOK_S: Final = 20

# The parts of an open job's record are kept from expiring this often.
KEEP_S: Final = 600

# A job that waits for a store is looked at so seldom.
WAITING_S: Final = 300.0

# A job all of whose batches are accounted for is driven on by its chord within this time, or not at all.
CALLBACK_S: Final = 10.0


def needs_a_look(standing: Standing, *, neglected: bool, driven: bool) -> str:  # noqa: PLR0911 - one return a reason
    """Return why a job needs to be looked at, "" if it does not."""
    if driven or standing.state.final:
        return ""
    if neglected:
        return "its orchestrator is gone"
    if standing.cancelling:
        return "cancelling"
    if standing.paused:
        return ""
    if standing.expired:
        return f"{counted(len(standing.expired), 'batch', 'batches')} whose worker is gone"
    if standing.overdue:
        return f"{counted(len(standing.overdue), 'batch', 'batches')} that nobody tries again"
    if standing.held:
        return "going on after a pause"
    if standing.state in (State.QUEUED, State.PLANNING):
        return "nobody planned it" if standing.idle_s > STALL_S else ""
    if standing.leased:
        return ""
    if standing.handed == standing.done and standing.idle_s > CALLBACK_S:
        return "its chord did not call back"
    # A job that waits for a store does not move; a look now and then finds what was lost all the same.
    longest = WAITING_S if standing.waiting else STALL_S
    return "nothing of it moves" if standing.idle_s > longest else ""


def look_at_all(app: Celery, ledger: Ledger) -> list[tuple[str, str]]:
    """
    Queue a look at each job that needs one; return which, and why.

    Raises what the broker raises. May be called at any time, by anybody.
    """
    looked = []
    for job_id in ledger.open_jobs():
        try:
            standing, neglected = ledger.neglected(job_id)
        except UnreadableJob as error:
            # A record that somebody damaged costs that job, and no other.
            if ledger.claim_mark(f"keep:{job_id}", KEEP_S):
                log.warning("%s", error)
            continue
        except UnknownJob:
            ledger.forget(job_id)
            continue
        if ledger.claim_mark(f"keep:{job_id}", KEEP_S):
            ledger.renew_expiry(job_id)
        why = needs_a_look(standing, neglected=neglected, driven=ledger.driven(job_id))
        waits = (
            standing.state is State.QUEUED
            and not standing.cancelling
            and ledger.has_queued_task(PLAN_QUEUE, job_id)
        )
        if why and not waits and ledger.claim_mark(f"look:{job_id}", LOOK_S):
            log.warning("the job is looked after: %s", why, extra=fields(job=job_id))
            look_after(app, job_id, why)
            looked.append((job_id, why))
    return looked


class Reconciler:
    """A thread that looks at all jobs, every `ROUND_S` seconds, unless another orchestrator just did."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._ended.set()

    def _run(self) -> None:
        assert self._settings.broker_url is not None  # make_app refuses settings without one
        ledger = Ledger(client(self._settings.broker_url, retries=0), expires_s=self._settings.job_expires)
        while not self._ended.wait(ROUND_S):
            try:
                if ledger.claim_mark("reconciler", max(1, ROUND_S - 1)):
                    look_at_all(self._app, ledger)
            except (RedisError, OperationalError) as error:
                log.warning("cannot look after jobs: the broker is away: %s", error)
            except Exception:
                log.exception("looking after jobs failed; trying again in %d s", ROUND_S)


def attach(app: Celery, settings: Settings) -> None:
    """Look after jobs for as long as a worker of *app* runs."""
    reconciler = Reconciler(app, settings)

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            reconciler.start()

    def shutdown(sender: Any = None, **_: Any) -> None:
        reconciler.stop()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutdown, weak=False)
