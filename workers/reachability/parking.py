"""
The part of a worker that looks after stores it cannot reach, and after the batches that were parked for that.

A thread of the worker's main process announces the worker to the fleet, checks
stores that it could not reach, and decides from which parking queues the worker
takes batches: from those of jobs both of whose stores it reaches. If no live
worker reaches the stores of a job, the thread records what the job waits for,
and gives the job up when its patience is over or every live worker was refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Celery, signals
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger
from snapferry.workers.queues import COPY_QUEUE, copy_queue, parking_queue
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import fields

from .outage import check, emptied, kind_of
from .records import NEW_S, Kind, ParkedJob, ReachBook, StoreSide, Trouble, pause_before_check, verdict

log = logging.getLogger(__name__)

# Between two looks at what is parked, and between two announcements.
LOOK_S: Final = 1.0
ANNOUNCE_S: Final = 5.0

# Parking queues of jobs that have ended are emptied so often, by one worker of the fleet.
DRAIN_S: Final = 60


class Parking:
    """
    Looks after parked batches for the worker called *worker*, which serves *queues*.

    *take_from* is told from which parking queues the worker is to take batches. *linger_s* seconds after a job's end
    Redis has put back whatever workers that died had taken.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        queues: Iterable[str],
        take_from: Callable[[set[str]], None],
        access: AccessPolicy = STRICT,
        linger_s: float = 0.0,
    ) -> None:
        self._access = access
        self._linger_s = linger_s
        self._ledger = ledger
        self._book = ReachBook(ledger.client)
        self._worker = worker
        self._queues = sorted(queues)
        self._take_from = take_from
        self._checks: dict[str, threading.Thread] = {}
        self._announced_ago = ANNOUNCE_S
        # The sides of jobs that were parked at the last look.
        self._sides: dict[str, StoreSide] = {}

    def look(self, passed_s: float = LOOK_S) -> None:
        """Do all of it once; *passed_s* seconds after the last time. Raises `redis.exceptions.RedisError`."""
        self._announced_ago += passed_s
        if self._announced_ago >= ANNOUNCE_S:
            self._book.announce(self._worker, self._queues)
            self._announced_ago = 0.0
        jobs = [job for job in self._book.parked() if copy_queue(job.queue) in self._queues]
        self._take_from({parking_queue(job.queue, job.job_id) for job in jobs if self._decide(job)})
        sides = {side.name: side for job in jobs for side in job.sides}
        for name, side in self._sides.items():
            if name not in sides:
                # Nobody checks this store any more, so what is known of it becomes worthless.
                self._book.forget(side, self._worker)
        self._sides = sides
        if self._ledger.claim_mark("drain", DRAIN_S):
            for queue in self._book.unparked(self._linger_s):
                self._ledger.remove_queue(queue)

    def leave(self) -> None:
        """Tell the fleet that the worker leaves. Raises `redis.exceptions.RedisError`."""
        self._book.leave(self._worker)

    def _decide(self, job: ParkedJob) -> bool:
        """Return whether the worker takes the parked batches of *job*; give the job up if nobody can take them."""
        state = self._book.state(job.job_id)
        queue = parking_queue(job.queue, job.job_id)
        if state.ended:
            # What is still in the queue is taken, and found not to be needed.
            if self._ledger.is_queue_empty(queue):
                self._book.unpark(job)
                self._ledger.remove_queue(queue)
                return False
            return True
        found = self._book.troubles(job.sides)
        mine = [
            (side, one)
            for side in job.sides
            for one in found[side.name]
            if one.worker == self._worker and not one.trial
        ]
        live, gone = self._book.workers(copy_queue(job.queue))
        workers = {*live, self._worker}
        blocked: dict[str, list[Trouble]] = {worker: [] for worker in workers}
        for side in job.sides:
            for one in found[side.name]:
                if one.worker in workers and not one.trial:
                    blocked[one.worker].append(one)
        since = 0.0
        if all(blocked.values()):
            refused = {one.worker for every in found.values() for one in every if one.kind == Kind.REFUSED}
            since = self._wait(job, blocked, state.patience_s, {*gone} - refused - workers)
        elif state.waits and not any(found.values()):
            self._book.stop_waiting(job.job_id, "waits")
        for side, trouble in mine:
            self._check(job.job_id, side, trouble, since)
        return not mine or bool(state.given_up)

    def _wait(
        self, job: ParkedJob, blocked: dict[str, list[Trouble]], patience_s: float, others: set[str]
    ) -> float:
        """
        Record that no worker reaches the stores of *job*; give it up in the end. Returns since when it waits.

        *others* may come back and reach them.
        """
        troubles = [one for found in blocked.values() for one in found]
        # A store that is away says more than a worker that lacks a mount.
        worst = min(troubles, key=lambda one: (one.kind != Kind.AWAY, one.since))
        since, waited_s = self._book.begin_waiting(job.job_id, "waits", worst.store, worst.detail)
        reason = verdict(sorted(blocked), blocked, since, waited_s, patience_s, others)
        if reason and self._book.give_up(job.job_id, reason):
            log.error("job given up: %s", reason, extra=fields(job=job.job_id))
        return since

    def _check(self, job_id: str, side: StoreSide, trouble: Trouble, since: float) -> None:
        """
        Begin a check of a store in a thread, if it is time for one, and another worker is not at it.

        A job that waits *since* a moment must not be given up for what was found before.
        """
        running = self._checks.get(side.name)
        if running is not None and running.is_alive():
            return
        kind = Kind(trouble.kind)
        pause_s = pause_before_check(kind, trouble.tries)
        stale = trouble.at < since - NEW_S
        away = kind is Kind.AWAY
        if stale or (self._book.take_turn(side, pause_s) if away else self._book.now() >= trouble.next):
            thread = threading.Thread(
                target=self._checked, args=(job_id, side, trouble), name="check", daemon=True
            )
            self._checks[side.name] = thread
            thread.start()

    def _checked(self, job_id: str, side: StoreSide, trouble: Trouble) -> None:
        try:
            error = check(side, self._access) or emptied(self._book, job_id, side, self._access)
            if error is None:
                log.info("store reached again", extra=fields(store=trouble.store))
                self._book.answered(side, trouble)
                if trouble.kind == Kind.AWAY:
                    self._book.end_turn(side)
                return
            kind = kind_of(self._book, side, self._worker, error)
            pause_s = pause_before_check(kind, trouble.tries + 1)
            self._book.failed(side, self._worker, error, kind, pause_s=pause_s)
        except RedisError as trouble_with_redis:
            log.warning("cannot record the check of a store: %s", trouble_with_redis)


class _Consumption:
    """Makes a worker's consumer take from parking queues, besides its own."""

    def __init__(self, app: Celery, consumer: Any) -> None:
        self._app = app
        self._consumer = consumer

    def take_from(self, queues: set[str]) -> None:
        """Let the consumer take from *queues*, and from no other parking queue."""
        if queues != self._present():
            # The consumer belongs to the event loop.
            self._consumer.call_soon(self._change, queues)

    def _present(self) -> set[str]:
        return {name for name in self._app.amqp.queues.consume_from if is_parking_queue(name)}

    def _change(self, queues: set[str]) -> None:
        present = self._present()
        try:
            for name in queues - present:
                self._consumer.add_task_queue(name)
            for name in present - queues:
                self._consumer.cancel_task_queue(name)
        except Exception as error:  # noqa: BLE001 - the broker is away; its return makes the consumer anew
            log.warning("cannot change the queues that this worker takes from: %s", error)


def is_parking_queue(name: str) -> bool:
    """Say whether the queue called *name* is the parking queue of a job."""
    return name.startswith(COPY_QUEUE) and ".@" in name


def attach(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Look after parked batches for as long as a worker of *app* runs that serves a copy queue."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def run(consumer: Any) -> None:
        assert settings.broker_url is not None  # make_app refuses settings without one
        ledger = Ledger(client(settings.broker_url, retries=0), expires_s=settings.job_expires)
        served = [name for name in app.amqp.queues.consume_from if name.startswith(COPY_QUEUE)]
        own = [name for name in served if not is_parking_queue(name)]
        if not own:
            return
        # Redis' sweep for what is to be put back comes after the timeout.
        linger_s = settings.visibility_timeout + 2 * DRAIN_S
        take_from = _Consumption(app, consumer).take_from
        parking = Parking(ledger, consumer.hostname, own, take_from, access, linger_s)
        while True:
            try:
                parking.look()
            except RedisError as error:
                log.warning("cannot look after parked batches: the broker is away: %s", error)
            except Exception:
                log.exception("looking after parked batches failed")
            if ended.wait(LOOK_S):
                break
        try:
            parking.leave()
        except RedisError as error:
            log.debug("cannot leave the roster: %s", error)

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app and not threads:
            threads.append(threading.Thread(target=run, args=(sender,), name="parking", daemon=True))
            threads[0].start()

    def shutdown(sender: Any = None, **_: Any) -> None:
        ended.set()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutdown, weak=False)
