"""Jobs as they stand: their states, snapshots, failures, receipts and limits. Nothing here changes a job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import redis
from pydantic import ValidationError

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow, snapshot_rows
from snapferry.orchestrator.reporting.failures import DeadLetter, dead_letters, without_places
from snapferry.orchestrator.reporting.nodes import Announced, Fleet, Role, lacking, nodes
from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.access import AccessPolicy
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.format import counted
from snapferry.workers.broker.connection import OUTAGE, BrokerUnavailable
from snapferry.workers.ledger import (
    JobStatus,
    RunningBatch,
    State,
    UnknownJob,
    UnreadableJob,
)
from snapferry.workers.limits import LimitStore, StoreLimits, store_id
from snapferry.workers.messages import JobSpec, is_job_id
from snapferry.workers.queues import copy_queue
from snapferry.workers.reachability.sides import sides_of
from snapferry.workers.reachability.store_problems import StoreProblem, StoreProblems
from snapferry.workers.reachability.worker_roster import WorkerRoster
from snapferry.workers.redis_json import parse_json
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import Settings

from .broker import JobBroker, JobRefused
from .index import JobIndex, JobQuery, Listing
from .known_nodes import announced
from .readable import readable

# Seconds between two readings of a job's status.
POLL_S: Final = 0.05

# Jobs that `JobReader.each` reads together.
EACH_PAGE: Final = 100

# How long `JobReader.wait` continues without an answer from the broker.
OUTAGE_S: Final = 120.0


@dataclass(frozen=True)
class JobsPage:
    """
    A page of the *total* jobs that a query selects. *by_state* and *stores* are those of `Selection`.

    Failed jobs that are over are in the state `SUPERSEDED` or `DISMISSED`.
    """

    jobs: list[JobStatus]
    total: int
    by_state: Counter[str]
    stores: Counter[str]


class JobReader:
    """
    The jobs of one fleet, to read. *settings* must name a broker.

    *access* is what this process may open to find the paths of failed objects, by default what its configuration
    allows; *role* is the name of the process in errors about that. Every method raises `BrokerUnavailable` if the
    broker goes away, or twice does not answer within *answer_s* seconds, and `UnknownJob` for an unknown job.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        answer_s: float = 30,
        access: AccessPolicy | None = None,
        role: str = "this command",
    ) -> None:
        self._access, self._role = access, role
        self._settings = settings
        self._broker = JobBroker(settings, answer_s=answer_s)
        self._ledger = self._broker.ledger
        self._index = JobIndex(self._ledger)
        self._limits = LimitStore(self._ledger.client)
        self._answering = self._broker.answering

    @contextmanager
    def records(self) -> Iterator[redis.Redis]:
        """Yield the client of the broker, for records that are not of jobs. Raises `BrokerUnavailable`."""
        with self._answering():
            yield self._ledger.client

    def status(self, job_id: str) -> JobStatus:
        """Return the job's status."""
        with self._answering():
            status = self._ledger.status(job_id)
            if status.state is not State.COPYING:
                return status
            return replace(status, in_parts=tuple(self._ledger.objects_in_parts(job_id)))

    def statuses(self, job_ids: Iterable[str]) -> dict[str, JobStatus]:
        """Return the statuses of jobs by their ids. Unknown jobs are left out."""
        with self._answering():
            wanted = [job_id for job_id in job_ids if is_job_id(job_id)]
            return {status.job_id: status for status in self._ledger.statuses(wanted)}

    def wait(
        self,
        job_id: str,
        watch: Callable[[JobStatus], None] = lambda _: None,
        *,
        check: Callable[[], None] = lambda: None,
        timeout_s: float | None = None,
        poll_s: float = POLL_S,
        pause: Callable[[float], object] = time.sleep,
    ) -> JobStatus:
        """
        Wait until the job has ended; return its final status, calling *watch* with each status on the way.

        After *timeout_s* seconds returns the current status, final
        or not. Otherwise as `follow`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for status in self.follow(job_id, check=check, poll_s=poll_s, pause=pause):
            watch(status)
            if deadline is not None and time.monotonic() > deadline:
                break
        return status

    def follow(
        self,
        job_id: str,
        *,
        check: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
        pause: Callable[[float], object] = time.sleep,
    ) -> Iterator[JobStatus]:
        """
        Yield the status of a job, at least one and every *poll_s* seconds, until the job has ended.

        *check* is called before each reading and may raise. *pause* is given *poll_s* between two readings. It may
        return earlier, if it knows that the job went on. Waits up to `OUTAGE_S` seconds for a broker that does
        not answer, then raises `BrokerUnavailable`; the job itself continues, and may be followed again.
        """
        last_seen = time.monotonic()
        while True:
            check()
            try:
                with self._answering(but=OUTAGE):
                    status = self._ledger.status(job_id)
            except OUTAGE as error:
                if time.monotonic() - last_seen > OUTAGE_S:
                    raise BrokerUnavailable(
                        f"the broker at {self._broker.shown} has not answered for {OUTAGE_S:.0f} s; job {job_id}"
                        " continues when it is back"
                    ) from error
                continue
            last_seen = time.monotonic()
            yield status
            if status.state.final:
                return
            pause(poll_s)

    def find(self, text: str) -> str:
        """
        Return the id of the one job that begins with *text*.

        Raises `UnknownJob`, and `JobRefused` for an empty text or if several jobs begin with it.
        """
        if not text:
            # As of a variable that is not set. Each id begins with it.
            raise JobRefused("the id of the job is empty; give the id or its first digits")
        if is_job_id(text):
            # A whole id needs no list of all jobs.
            with suppress(UnknownJob):
                return self.status(text).job_id
        with self._answering():
            found = [job_id for job_id in self._ledger.job_ids() if job_id.startswith(text)]
        if len(found) > 1 and text not in found:
            raise JobRefused(f"{text} matches {counted(len(found), 'job')}; give more digits of the id")
        if not found:
            raise UnknownJob(text)
        return text if text in found else found[0]

    def listing(self) -> Listing:
        """Return all jobs as they are now, for several calls of `page`."""
        with self._answering():
            return self._index.listing()

    def page(self, query: JobQuery, *, first: int, count: int, listing: Listing | None = None) -> JobsPage:
        """
        Return *count* of the jobs that *query* selects, from number *first* on; beyond the last, the last page.

        They are those of *listing*, by default of a new one.
        """
        with self._answering():
            found = (listing or self._index.listing()).select(query)
            total = len(found.job_ids)
            first = min(first, max(0, (total - 1) // count * count))
            jobs = self._ledger.statuses(found.job_ids[first : first + count])
        return JobsPage(jobs, total, found.by_state, found.stores)

    def each(self, query: JobQuery) -> Iterator[JobStatus]:
        """Yield all jobs that *query* selects, in its order, read a few at a time. Jobs that expire are left out."""
        with self._answering():
            job_ids = self._index.listing().select(query).job_ids
        for first in range(0, len(job_ids), EACH_PAGE):
            with self._answering():
                found = self._ledger.statuses(job_ids[first : first + EACH_PAGE])
            yield from found

    def spec(self, job_id: str) -> JobSpec | None:
        """Return what was asked of a job, None for a job of a version that this one cannot read."""
        with self._answering():
            try:
                return self._ledger.spec(job_id)
            except ValidationError:
                return None

    def schedule(self, job_id: str) -> str:
        """Return the mirror or scrub that queued a job, as ``mirror:nightly``, "" for none."""
        with self._answering():
            found = self._ledger.entries([job_id])
            return found[0].schedule if found else ""

    def open(self) -> Sequence[JobStatus]:
        """Return all jobs that have not ended."""
        with self._answering():
            return self._ledger.statuses(self._ledger.open_jobs())

    def running(self, job_id: str | None = None) -> Sequence[RunningBatch]:
        """Return the batches that workers run now: those of one job, or of all."""
        with self._answering():
            return self._ledger.running(self._ledger.open_jobs() if job_id is None else [job_id])

    def snapshots(self, job_id: str) -> list[SnapshotRow]:
        """Return the state of each snapshot of the job, in the job's order."""
        with self._answering(), readable(job_id):
            return list(snapshot_rows(self._ledger, job_id))

    def unreadable(self, job_id: str) -> list[SnapshotRow]:
        """Return the snapshots of the job whose manifests could not be read, with the reasons."""
        return [row for row in self.snapshots(job_id) if row.unreadable]

    def estimate(self, job_id: str) -> dict[str, Any]:
        """Return the estimate of a dry run or of a job with a budget (docs/json.md); empty for other jobs."""
        with self._answering(), readable(job_id):
            found: dict[str, Any] = parse_json(self._ledger.field(job_id, "estimate") or "{}")
            return found

    def receipt(self, job_id: str) -> dict[str, Any]:
        """Return the job's receipt, one JSON document (docs/json.md)."""
        with self._answering(), readable(job_id):
            return receipt(self._ledger, job_id)

    def failures(self, job_id: str, *, places: bool = True) -> Iterator[DeadLetter]:
        """
        Yield every object that failed, with the snapshots and paths that need it; see `failures.dead_letters`.

        Without *places* no store is read, and only the first thousand objects are known. With them, raises
        `InvalidSettings` where the configuration of this process cannot be used.
        """
        with self._answering(), readable(job_id):
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

    def unreached(self, job_id: str) -> list[StoreProblem]:
        """Return which live workers cannot reach a store of the job, and why; empty for a job of another version."""
        with self._answering(), readable(job_id):
            try:
                spec = self._ledger.spec(job_id)
            except ValidationError:
                return []
            live = WorkerRoster(self._ledger.client).live(copy_queue(spec.queue))
            troubles = StoreProblems(self._ledger.client).of_sides(sides_of(spec)).values()
            return [trouble for found in troubles for trouble in found if trouble.worker in live]

    def announced(self) -> Announced:
        """Return the workers and orchestrators that announced themselves."""
        with self._answering():
            return announced(self._ledger.client)

    def lacks(self, status: JobStatus) -> Role | None:
        """Return the role of which no process runs that could take the next step of a job, None if there may be one."""
        found = self.announced()
        return lacking(status, Fleet(nodes(found, {}), found.complete))

    def store_limits(self, job_id: str) -> dict[str, StoreLimits]:
        """Return the limits of a job's stores, for all jobs together: those of ``source`` and ``destination``."""
        with self._answering(), readable(job_id):
            status = self._ledger.status(job_id)
            try:
                stores = [store_id(status.source), store_id(status.destination)]
            except InvalidStoreURL:
                # Another program wrote it. No store has a limit under this name.
                return {"source": StoreLimits(), "destination": StoreLimits()}
            _, (source, destination) = self._limits.limits_of_run(job_id, stores)
            return {"source": source, "destination": destination}

    def limited_stores(self) -> dict[str, StoreLimits]:
        """Return the stores that have a limit set: name -> limits."""
        with self._answering():
            return self._limits.all_store_limits(self._settings.s3_max_requests)

    # Last, because within the class its name hides the built-in type.
    def list(self, *, limit: int, state: str | None = None) -> list[JobStatus]:
        """Return the newest jobs, at most *limit*: in one *state* of `JobQuery.states`, or in any."""
        if state is not None:
            # Not one request for each of thousands of jobs.
            return self.page(JobQuery((state,)), first=0, count=limit).jobs
        found: list[JobStatus] = []
        with self._answering():
            for job_id in self._ledger.job_ids():
                if len(found) >= limit:
                    break
                try:
                    status = self._ledger.status(job_id)
                except UnreadableJob:
                    # The record is damaged, or of another version.
                    continue
                except UnknownJob:
                    self._ledger.forget(job_id)
                    continue
                found.append(status)
        return found
