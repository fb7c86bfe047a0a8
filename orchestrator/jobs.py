"""
Jobs: submit them, see how they stand, steer them. The Python API of snapferry.

    jobs = Jobs(Settings.from_environment())
    job_id = jobs.submit(source, destination, [snapshot_id])
    jobs.wait(job_id)

A submitted job needs its submitter no longer: the fleet carries it on.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.stores.access import AccessPolicy
from snapferry.stores.address import parse_address
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.broker.connection import (
    OUTAGE,
    BrokerUnavailable,
    check_broker,
    client,
    refusal,
    shown,
)
from snapferry.workers.ledger import PLAN, JobStatus, Ledger, RunningBatch, State, UnknownJob, UnreadableJob
from snapferry.workers.limits import Change, LimitBook, StoreLimits, store_place
from snapferry.workers.messages import Budget, JobRequest, Limits, Order, Prune, StoreRef, pack
from snapferry.workers.queues import Priority, copy_queue
from snapferry.workers.reachability.records import ReachBook, Trouble, sides_of
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import Settings, store_options

from .app import make_fleet_app
from .driving.dispatch import look_after, submit_plan
from .reporting.failures import DeadLetter, dead_letters, without_places
from .reporting.receipt import SnapshotRow, receipt, snapshot_rows

log = logging.getLogger(__name__)

POLL_S = 0.05

# How long `Jobs.wait` goes on without an answer from the broker.
OUTAGE_S = 120.0


class JobRefused(Exception):
    """What was asked of a job cannot be done; the message says why and what can be, in one line."""


class Jobs:
    """
    The jobs of one fleet. *settings* must name a broker.

    Raises `snapferry.workers.settings.environment.InvalidSettings`; with *check*, also
    `snapferry.workers.broker.connection.BrokerUnavailable` within 10 seconds if the broker does
    not answer or would lose tasks. *access* is what this process may open to look for the paths of failed
    objects; by default what its configuration allows, and *role* is what it calls itself then. Every
    method raises `BrokerUnavailable` if
    the broker goes away, or twice does not answer within *answer_s* seconds,
    and `UnknownJob` for a job that it does not know.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        check: bool = True,
        answer_s: float = 30,
        access: AccessPolicy | None = None,
        role: str = "this command",
    ) -> None:
        self._access, self._role = access, role
        self._settings = settings
        self._app: Celery = make_fleet_app(settings)
        if check:
            check_broker(settings.broker_url or "")
        assert settings.broker_url is not None  # the app refuses settings without one
        self._broker = settings.broker_url
        redis = client(self._broker, retries=1, answer_s=answer_s)
        self._ledger = Ledger(redis, expires_s=settings.job_expires)
        self._limits = LimitBook(redis)

    def submit(
        self,
        source: StoreRef,
        destination: StoreRef,
        snapshot_ids: Sequence[str] | None,
        *,
        order: Order | None = None,
        trust_manifest: bool = False,
        allow_empty_source: bool = False,
        prune: Prune | None = None,
        budget: Budget | None = None,
        concurrency: int | None = None,
        dry_run: bool = False,
        priority: Priority = Priority.NORMAL,
        queue: str = "",
        limits: Limits | None = None,
        patience: float | None = None,
    ) -> str:
        """
        Queue the copy of snapshots, None: all that the source lists when the job is planned; return the job's id.

        A source that lists none fails the job, unless *allow_empty_source*.

        *order*: as given, or the newest first where all are meant. *queue* is the
        name of one that some workers were told to serve. *limits* are those that
        it begins with; `limit` changes them. *patience* is how many seconds it waits for a store
        that is away, also for one that has not answered yet; None: as long as the settings
        say, and only for a store that has. Raises
        `InvalidAddress` and ValueError (an id twice) before anything is queued.
        Called again, it makes another job, which finds the work of the first done.
        """
        ids = [parse_address(snapshot_id) for snapshot_id in snapshot_ids or ()]
        if len(set(ids)) != len(ids):
            twice = next(snapshot_id for snapshot_id in ids if ids.count(snapshot_id) > 1)
            raise ValueError(f"{twice} is given twice")
        everything = snapshot_ids is None
        return self._queue(
            self._request(
                source=source,
                destination=destination,
                snapshots=pack(ids),
                everything=everything,
                order=order or (Order.NEWEST if everything else Order.GIVEN),
                trust_manifest=trust_manifest,
                allow_empty_source=allow_empty_source,
                prune=prune,
                budget=budget or Budget(),
                concurrency=concurrency,
                dry_run=dry_run,
                priority=priority,
                queue=queue,
                limits=limits or Limits(),
                **self._patience(patience),
            )
        )

    def resume(self, job_id: str, *, patience: float | None = None) -> str | None:
        """
        Queue a job that does what is left of another that has ended; return its id, None if nothing is left.

        What the first one copied is found present. *patience* as for `submit`; None: that of the first one. Raises
        `JobRefused` for a job that still goes on.
        """
        request, status = self._ended(job_id)
        if status.dry_run:
            raise JobRefused(f"job {job_id} was a dry run: there is nothing to resume")
        if status.state is State.DONE:
            return None
        ids = [row.id for row in self.snapshots(job_id) if row.state in {"pending", "failed"}]
        changed = self._changed(status, patience)
        if not ids and request.everything and not status.snapshots_total:
            # It ended before the source was listed.
            return self._queue(self._again(request, resumes=job_id, **changed))
        return self._queue(self._only(request, ids, resumes=job_id, **changed))

    def retry(self, job_id: str, *, patience: float | None = None) -> str:
        """
        Queue a job that copies just the objects that failed in another, and publishes what becomes whole.

        *patience* as for `resume`.

        Raises `JobRefused` for a job that goes on, that was not brought to its end, or in which nothing failed.
        """
        request, status = self._ended(job_id)
        if status.state is State.DONE:
            raise JobRefused(f"job {job_id} is done: nothing failed in it")
        with self._answering():
            unaccounted = self._ledger.unaccounted(job_id, PLAN, range(status.batches_total))
        if unaccounted or not status.failed:
            raise JobRefused(
                f"job {job_id} ended as {status.state} before all of its objects were tried; use: snapferry resume"
                f" {job_id}"
            )
        ids = [row.id for row in self.snapshots(job_id) if row.state != "published"]
        return self._queue(self._only(request, ids, retries=job_id, **self._changed(status, patience)))

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands now."""
        with self._answering():
            return self._ledger.status(job_id)

    def snapshots(self, job_id: str) -> list[SnapshotRow]:
        """Return how each snapshot of the job stands."""
        with self._answering():
            return list(snapshot_rows(self._ledger, job_id))

    def estimate(self, job_id: str) -> dict[str, Any]:
        """Return what a dry run, or the check of a budget, found; empty if there was none."""
        with self._answering():
            found: dict[str, Any] = json.loads(self._ledger.field(job_id, "estimate") or "{}")
            return found

    def receipt(self, job_id: str) -> dict[str, Any]:
        """Return the job's receipt, one JSON document (docs/json.md)."""
        with self._answering():
            return receipt(self._ledger, job_id)

    def failures(self, job_id: str, *, places: bool = True) -> Iterator[DeadLetter]:
        """
        Yield every object that failed, with the snapshots and paths that it holds up; see `failures.dead_letters`.

        Without *places* no store is asked, and only the first thousand are known. With them, raises
        `InvalidSettings` where the configuration of this process cannot be used.
        """
        with self._answering():
            yield from (
                dead_letters(self._ledger, job_id, self._allowed())
                if places
                else without_places(self._ledger, job_id)
            )

    def _allowed(self) -> AccessPolicy:
        if self._access is None:
            self._access = access_policy(self._settings, self._role)
        return self._access

    def failed_by_class(self, job_id: str) -> dict[str, int]:
        """Return how many objects failed, by the class of their errors."""
        with self._answering():
            return self._ledger.failed_by_class(job_id)

    def cancel(self, job_id: str) -> JobStatus:
        """
        Ask for the job to stop; return its status. Running copies stop within seconds; what is copied stays.

        May be called again; a job that has ended stays as it is.
        """
        with self._answering():
            if not self._ledger.cancel(job_id).final:
                self._hurry(job_id, "cancel")
            return self._ledger.status(job_id)

    def pause(self, job_id: str) -> JobStatus:
        """
        Hold the job within 30 seconds; return its status. May be called again.

        No further object begins; those in flight have 15 seconds and are then interrupted. What is copied stays.
        """
        with self._answering():
            self._ledger.pause(job_id, paused=True)
            return self._ledger.status(job_id)

    def unpause(self, job_id: str) -> JobStatus:
        """Let a paused job go on. May be called again."""
        with self._answering():
            if not self._ledger.pause(job_id, paused=False).final:
                self._hurry(job_id, "continue")
            return self._ledger.status(job_id)

    def _hurry(self, job_id: str, why: str) -> None:
        """Let an orchestrator look at the job at once. What it is to see is recorded: without this it looks soon."""
        try:
            look_after(self._app, job_id, why)
        except (RedisError, OperationalError) as error:
            log.debug("nobody can be told to look at job %s: %s", job_id, error)

    def prioritise(self, job_id: str, priority: Priority) -> tuple[JobStatus, int]:
        """
        Let workers take the job's batches by *priority* from now on; return its status, and how many were moved.

        Those that wait are moved, those that run go on. May be called again; a job that has ended stays as it is.
        """
        with self._answering():
            _, moved = self._ledger.prioritise(job_id, priority)
            return self._ledger.status(job_id), moved

    def limit(self, job_id: str, changed: Mapping[str, int | None]) -> JobStatus:
        """
        Set limits of a job by the names of `Limits`, None: take them away; return its status.

        What runs keeps to them within a second. May be called again; a job that has ended stays as it is.
        """
        with self._answering():
            self._limits.limit_job(job_id, changed)
            return self._ledger.status(job_id)

    def unreached(self, job_id: str) -> list[Trouble]:
        """Return which live workers cannot reach a store of the job, and why; nothing for one of another version."""
        with self._answering():
            try:
                request = self._ledger.request(job_id)
            except ValidationError:
                return []
            book = ReachBook(self._ledger.client)
            live = book.live_workers(copy_queue(request.queue))
            found = book.troubles(sides_of(request)).values()
            return [one for troubles in found for one in troubles if one.worker in live]

    def store_limits(self, job_id: str) -> dict[str, StoreLimits]:
        """Return what holds at a job's stores, for all jobs together: that of ``source`` and ``destination``."""
        with self._answering():
            status = self._ledger.status(job_id)
            places = [store_place(status.source), store_place(status.destination)]
            _, (source, destination) = self._limits.of_run(job_id, places)
            return {"source": source, "destination": destination}

    def limit_store(self, url: str, changed: Mapping[str, Change]) -> tuple[str, StoreLimits]:
        """
        Set limits of the store at *url*, for all jobs together; return what it goes by, and its limits.

        None takes one away, also where stores of its kind have one by default; "default" brings that back. What is
        returned is what holds for jobs that are submitted from here. Raises `InvalidStoreURL`. May be called again.
        """
        place = store_place(url)
        with self._answering():
            if changed:
                self._limits.limit_store(place, changed)
            return place, self._limits.of_store(place, self._settings.s3_max_requests)

    def limited_stores(self) -> dict[str, StoreLimits]:
        """Return every store of whose limits one was set, by what it goes by."""
        with self._answering():
            return self._limits.of_stores(self._settings.s3_max_requests)

    def list(self, *, limit: int, state: State | None = None) -> list[JobStatus]:
        """Return the latest jobs, of one *state* or of all, at most *limit*."""
        found: list[JobStatus] = []
        with self._answering():
            for job_id in self._ledger.job_ids():
                if len(found) >= limit:
                    break
                try:
                    status = self._ledger.status(job_id)
                except UnreadableJob:
                    # Damaged, or of another version: what that one submitted is for that to show.
                    continue
                except UnknownJob:
                    self._ledger.forget(job_id)
                    continue
                if state is None or status.state is state:
                    found.append(status)
        return found

    def page(self, *, first: int, count: int, states: Collection[State] = ()) -> JobsPage:
        """Return *count* jobs in one of *states* (none: in any) from the *first* on, the latest is number 0."""
        wanted = set(states or State)
        with self._answering():
            job_ids = self._ledger.job_ids()
            of = self._ledger.states(job_ids)
            chosen = [job_id for job_id, state in zip(job_ids, of, strict=True) if state in wanted]
            found = self._ledger.statuses(chosen[first : first + count])
        return JobsPage(found, len(chosen), {state: of.count(state) for state in State})

    def open(self) -> Sequence[JobStatus]:
        """Return all jobs that have not ended."""
        with self._answering():
            return self._ledger.statuses(self._ledger.open_jobs())

    def running(self, job_id: str | None = None) -> Sequence[RunningBatch]:
        """Return the batches that a worker has right now: those of one job, or of all."""
        with self._answering():
            return self._ledger.running(self._ledger.open_jobs() if job_id is None else [job_id])

    def find(self, text: str) -> str:
        """Return the id of the one job that begins with *text*. Raises `UnknownJob`, and `JobRefused` if several do."""
        with self._answering():
            found = [job_id for job_id in self._ledger.job_ids() if job_id.startswith(text)]
        if len(found) > 1 and text not in found:
            raise JobRefused(f"{text} is the beginning of {len(found)} jobs; give more of it")
        if not found or not text:
            raise UnknownJob(text)
        return text if text in found else found[0]

    def wait(
        self,
        job_id: str,
        watch: Callable[[JobStatus], None] = lambda _: None,
        *,
        check: Callable[[], None] = lambda: None,
        timeout_s: float | None = None,
        poll_s: float = POLL_S,
    ) -> JobStatus:
        """
        Return the job's final status, calling *watch* with each status on the way.

        *check* is called before each look and may raise. A broker that is away
        is waited for, `OUTAGE_S` seconds at most: then `BrokerUnavailable`. The
        job itself goes on. After *timeout_s* seconds returns the status as it
        is, final or not.
        """
        began = last_seen = time.monotonic()
        while True:
            check()
            try:
                with self._answering(but=OUTAGE):
                    status = self._ledger.status(job_id)
            except OUTAGE as error:
                if time.monotonic() - last_seen > OUTAGE_S:
                    raise BrokerUnavailable(
                        f"the broker at {shown(self._broker)} has not answered for {OUTAGE_S:.0f} s; job {job_id}"
                        " goes on when it is back"
                    ) from error
                continue
            last_seen = time.monotonic()
            watch(status)
            if status.state.final or (timeout_s is not None and last_seen - began > timeout_s):
                return status
            time.sleep(poll_s)

    def _changed(self, status: JobStatus, patience: float | None) -> dict[str, Any]:
        """Return what a job that continues another does not have of its request."""
        return {"limits": status.limits, **({} if patience is None else self._patience(patience))}

    def _patience(self, patience: float | None) -> dict[str, float | bool]:
        if patience is None:
            return {"patience": self._settings.patience}
        return {"patience": patience, "waits_at_start": True}

    def _request(self, **fields: Any) -> JobRequest:
        return JobRequest(
            job_id=str(uuid.uuid4()),
            batch_objects=self._settings.batch_objects,
            batch_bytes=self._settings.batch_bytes,
            window_batches=self._settings.window_batches,
            **fields,
        )

    def _again(self, request: JobRequest, **changed: Any) -> JobRequest:
        kept = {name: getattr(request, name) for name in _KEPT_AGAIN}
        return self._request(**(kept | changed))

    def _only(self, request: JobRequest, ids: Sequence[str], **changed: Any) -> JobRequest:
        """Return a request for what is left of another: *ids*, which are in its order already."""
        return self._again(request, snapshots=pack(ids), everything=False, order=Order.GIVEN, **changed)

    def _queue(self, request: JobRequest) -> str:
        """
        Queue *request*; return its job's id.

        Whatever is raised tells the truth: the job's record is withdrawn, and nobody will run it; or, where that
        cannot be done either, the message says so.
        """
        job_id = request.job_id
        try:
            with self._answering():
                self._ledger.create(request, s3_requests=self._settings.s3_max_requests)
                submit_plan(self._app, request)
        except BaseException as error:
            if self._withdrawn(job_id, error):
                raise
        return job_id

    def _withdrawn(self, job_id: str, error: BaseException) -> bool:
        """Withdraw a job whose queueing failed by *error*; False if an orchestrator began it all the same."""
        try:
            gone = self._ledger.withdraw(job_id)
        except RedisError:
            raise BrokerUnavailable(
                f"{str(error) or type(error).__name__}. Job {job_id} may have been recorded: then it runs when the"
                f" broker is back. To prevent that: snapferry cancel {job_id}"
            ) from error
        # A message of it that is in the queue nevertheless is for a job that nobody knows, and dropped.
        return gone

    def _ended(self, job_id: str) -> tuple[JobRequest, JobStatus]:
        with self._answering():
            status = self._ledger.status(job_id)
            if not status.state.final:
                raise JobRefused(f"job {job_id} goes on ({status.state}); cancel it first, or watch it")
            try:
                return self._ledger.request(job_id), status
            except ValidationError:
                raise JobRefused(
                    f"job {job_id} was submitted by another version of snapferry; submit it again"
                ) from None

    @contextmanager
    def _answering(self, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        try:
            yield
        except but:
            raise
        except (RedisError, OperationalError) as error:
            raise BrokerUnavailable(
                f"the broker at {shown(self._broker)} does not take it: {_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    # A refusal says itself what is the matter.
    text = str(error)[:400]
    return text if refusal(error) else f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class JobsPage:
    """Some of the *total* jobs in the states that were asked for, and how many of all are in which state."""

    jobs: list[JobStatus]
    total: int
    by_state: dict[State, int]


# What a job that resumes or retries another has of it.
_KEPT_AGAIN = (
    "source", "destination", "everything", "allow_empty_source", "order", "trust_manifest", "prune", "budget",
    "concurrency", "priority", "queue", "patience", "waits_at_start",
)  # fmt: skip


def store_pair(
    from_url: str, to_url: str, from_objects: str | None = None, to_objects: str | None = None
) -> tuple[StoreRef, StoreRef]:
    """
    Read both sides of a copy, each with what the environment adds to its URLs.

    Raises `InvalidStoreURL`, also where both sides are one store.
    """
    for_source, for_destination = store_options("from"), store_options("to")
    here = parse_url(from_url).with_defaults(**for_source)
    there = parse_url(to_url).with_defaults(**for_destination)
    if here.same_place(there):
        raise InvalidStoreURL("", str(here).split("?", 1)[0], "is both source and destination")
    source_pool = str(parse_url(from_objects).with_defaults(**for_source)) if from_objects else None
    destination_pool = str(parse_url(to_objects).with_defaults(**for_destination)) if to_objects else None
    return (
        StoreRef(url=str(here), objects_url=source_pool),
        StoreRef(url=str(there), objects_url=destination_pool),
    )
