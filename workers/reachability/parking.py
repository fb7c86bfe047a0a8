"""
Check the stores that a worker cannot reach, and decide which parked batches the worker takes.

A worker takes batches from the parking queues of jobs whose stores it reaches. If no live worker reaches the stores of
a job, the job's record names the store that it waits for. The job is given up when its patience is exhausted, or when
every live worker was refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.workers.ledger import Ledger
from snapferry.workers.queues import copy_queue, parking_queue
from snapferry.workers.telemetry.logs import fields

from . import clock
from .giving_up import NEW_S, give_up_reason
from .parked_jobs import ParkedJob, ParkedJobs
from .sides import StoreSide
from .store_check import check, kind_of, missing_store
from .store_problems import Kind, StoreProblem, StoreProblems, pause_before_check
from .worker_roster import WorkerRoster

log = logging.getLogger(__name__)

ROUND_S: Final = 1.0
"""Time between two rounds."""

ANNOUNCE_S: Final = 5.0
"""Time between two announcements of the worker."""

DRAIN_S: Final = 60
"""One worker of the fleet empties the parking queues of ended jobs this often."""


class Parking:
    """
    Handles parked batches for the worker named *worker*, which serves *queues* by as many *processes* as that returns.

    *take_from* is called with the parking queues from which the worker takes batches. *linger_s* seconds after the end
    of a job, all messages that dead workers had taken are back in their queues.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        queues: Iterable[str],
        take_from: Callable[[set[str]], None],
        access: AccessPolicy = STRICT,
        linger_s: float = 0.0,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._access = access
        self._linger_s = linger_s
        self._processes = processes
        self._ledger = ledger
        self._problems = StoreProblems(ledger.client)
        self._roster = WorkerRoster(ledger.client)
        self._jobs = ParkedJobs(ledger.client)
        self._worker = worker
        self._queues = sorted(queues)
        self._take_from = take_from
        self._checks: dict[str, threading.Thread] = {}
        self._announced_ago_s = ANNOUNCE_S
        # The parking queues and the sides of the jobs that were parked in the last round.
        self._served: set[str] = set()
        self._sides: dict[str, StoreSide] = {}

    def run_round(self, passed_s: float = ROUND_S) -> None:
        """Run one round, *passed_s* seconds after the last one. Raises `redis.exceptions.RedisError`."""
        self._announced_ago_s += passed_s
        if self._announced_ago_s >= ANNOUNCE_S:
            self._roster.announce(self._worker, self._queues, self._processes())
            self._announced_ago_s = 0.0
        jobs = [job for job in self._jobs.all() if copy_queue(job.queue) in self._queues]
        parked = {parking_queue(job.queue, job.job_id) for job in jobs}
        for queue in self._served - parked:
            # Redis forgot the job. A message that was on its way to this worker goes back to the queue.
            self._jobs.drain(queue)
        self._served = parked
        self._take_from({parking_queue(job.queue, job.job_id) for job in jobs if self._takes_batches(job)})
        sides = {side.name: side for job in jobs for side in job.sides}
        for name, side in self._sides.items():
            if name not in sides:
                # No worker checks this store any more, so the record would become outdated.
                self._problems.forget(side, self._worker)
        self._sides = sides
        if self._ledger.claim_mark("drain", DRAIN_S):
            for queue in self._jobs.unparked_queues(self._linger_s):
                self._ledger.remove_queue(queue)

    def leave(self) -> None:
        """Record that the worker is gone. Raises `redis.exceptions.RedisError`."""
        self._roster.leave(self._worker)

    def _takes_batches(self, job: ParkedJob) -> bool:
        """Return whether the worker takes the parked batches of *job*; give the job up if no worker can take them."""
        state = self._jobs.state(job.job_id)
        queue = parking_queue(job.queue, job.job_id)
        if state.ended:
            # The worker takes what is left in the queue, and skips it.
            if self._ledger.is_queue_empty(queue):
                self._jobs.unpark(job)
                self._ledger.remove_queue(queue)
                return False
            return True
        found = self._problems.of_sides(job.sides)
        own = [
            (side, problem)
            for side in job.sides
            for problem in found[side.name]
            if problem.worker == self._worker and not problem.trial
        ]
        live, gone = self._roster.serving(copy_queue(job.queue))
        workers = {*live, self._worker}
        blocked: dict[str, list[StoreProblem]] = {worker: [] for worker in workers}
        for side in job.sides:
            for problem in found[side.name]:
                if problem.worker in workers and not problem.trial:
                    blocked[problem.worker].append(problem)
        since = 0.0
        if all(blocked.values()):
            refused = {
                problem.worker
                for problems in found.values()
                for problem in problems
                if problem.kind == Kind.REFUSED
            }
            reached = any(
                self._problems.reached_before(side, problem.worker)
                for side in job.sides
                for problem in found[side.name]
                if problem.worker in workers and problem.kind == Kind.REFUSED and problem.may_change
            )
            since = self._wait(job, blocked, state.patience_s, {*gone} - refused - workers, reached=reached)
        elif state.waits and not any(found.values()):
            self._jobs.stop_waiting(job.job_id, "waits")
        for side, problem in own:
            self._start_check(job.job_id, side, problem, since)
        return not own or bool(state.given_up)

    def _wait(
        self,
        job: ParkedJob,
        blocked: dict[str, list[StoreProblem]],
        patience_s: float,
        others: set[str],
        *,
        reached: bool,
    ) -> float:
        """
        Record that no worker reaches the stores of *job*; give the job up in the end. Returns since when it waits.

        *others* may come back and reach them. *reached*: a worker had reached the store that refuses it now.
        """
        problems = [problem for found in blocked.values() for problem in found]
        # A store that is away explains more than a worker on which it is not mounted.
        worst = min(problems, key=lambda problem: (problem.kind != Kind.AWAY, problem.since))
        since, waited_s = self._jobs.begin_waiting(job.job_id, "waits", worst.store, worst.detail)
        reason = give_up_reason(
            sorted(blocked), blocked, since, waited_s, patience_s, others, reached=reached
        )
        if reason and self._jobs.give_up(job.job_id, reason):
            log.error("job given up: %s", reason, extra=fields(job=job.job_id))
        return since

    def _start_check(self, job_id: str, side: StoreSide, problem: StoreProblem, since: float) -> None:
        """
        Start a check of a store in a thread, if it is due and no other worker runs it.

        A job that waits *since* a moment must not be given up for a problem that was found before. So an older problem
        is checked at once.
        """
        running = self._checks.get(side.name)
        if running is not None and running.is_alive():
            return
        kind = Kind(problem.kind)
        pause_s = pause_before_check(kind, problem.tries)
        if problem.at < since - NEW_S:
            due = True
        elif kind is Kind.AWAY:
            due = self._problems.claim_check(side, pause_s)
        else:
            due = clock.now(self._ledger.client) >= problem.next
        if due:
            thread = threading.Thread(
                target=self._check, args=(job_id, side, problem), name="check", daemon=True
            )
            self._checks[side.name] = thread
            thread.start()

    def _check(self, job_id: str, side: StoreSide, problem: StoreProblem) -> None:
        try:
            error = check(side, self._access) or missing_store(self._jobs, job_id, side, self._access)
            if error is None:
                log.info("store reached again", extra=fields(store=problem.store))
                self._problems.record_answer(side, problem)
                if problem.kind == Kind.AWAY:
                    self._problems.release_check(side)
                return
            kind = kind_of(self._problems, side, self._worker, error)
            pause_s = pause_before_check(kind, problem.tries + 1)
            self._problems.record_failure(side, self._worker, error, kind, pause_s=pause_s)
        except RedisError as redis_error:
            log.warning("cannot record the check of a store: %s", redis_error)
