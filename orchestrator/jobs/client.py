"""Submit jobs and control them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.orchestrator.driving.dispatch import queue_drive, queue_plan
from snapferry.orchestrator.job_app import make_job_app
from snapferry.stores.access import AccessPolicy
from snapferry.workers.broker.connection import BrokerUnavailable, check_broker
from snapferry.workers.copying.commit import ENDED_WELL, SnapshotState
from snapferry.workers.ledger import PLAN, JobStatus, State
from snapferry.workers.limits import Change, StoreLimits, store_id
from snapferry.workers.messages import JobSpec, Order, encode_addresses
from snapferry.workers.queues import Priority, copy_queue
from snapferry.workers.settings.environment import Settings

from .batching import batching
from .broker import JobRefused
from .known_nodes import processes_of
from .reader import JobReader

log = logging.getLogger(__name__)

# Fields of a request whose defaults are settings of the submitting process.
_BATCHING: Final = ("batch_objects", "batch_bytes", "window_batches")
_FROM_SETTINGS: Final = (*_BATCHING, "patience")


class Jobs(JobReader):
    """
    The jobs of one fleet. *settings* must name a broker.

    Raises `snapferry.workers.settings.environment.InvalidSettings`. With *check*, also raises
    `snapferry.workers.broker.connection.BrokerUnavailable` within 10 seconds if the broker does not answer or would
    lose tasks. *plan* takes the first steps of a job by its id, instead of the next orchestrator. Otherwise as
    `JobReader`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        check: bool = True,
        answer_s: float = 30,
        access: AccessPolicy | None = None,
        role: str = "this command",
        plan: Callable[[str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._app: Celery = make_job_app(settings, serves=False)
        if check:
            check_broker(settings.broker_url or "")
        super().__init__(settings, answer_s=answer_s, access=access, role=role)

    def close(self) -> None:
        """Close the connections to the broker. May be called again; a later call of another method opens them again."""
        self._ledger.client.close()
        self._app.close()

    def submit(self, spec: JobSpec, *, schedule: str = "", paused: bool = False) -> str:
        """
        Queue a job; return its id, which is that of *spec*. *schedule* names the mirror or scrub that queues it. A
        *paused* job waits until `unpause`.

        If *spec* does not set its batch settings or its patience, those of this process's settings apply. Unless it
        says into how many batches or by which rules its objects are cut, the live workers decide it. They do not for a
        job whose id the caller chose: if the broker loses the job, and it is submitted again, workers may have batches
        of the first one, which are accounted for by their numbers. The default order of a job of everything is newest
        first. A job whose patience is set also waits for a store that has not answered yet. Submitting the same *spec*
        again changes nothing. After an error the job is not queued, unless the message says that it may be.
        """
        given = spec.model_fields_set
        filled = self._from_settings(name for name in _FROM_SETTINGS if name not in given)
        if "patience" in given and "waits_at_start" not in given:
            filled["waits_at_start"] = True
        if spec.everything and "order" not in given:
            filled["order"] = Order.NEWEST
        if not given & {"group_batches", "job_id", "rules"}:
            filled |= self._batching(spec, given)
        return self._queue(spec.model_copy(update=filled), schedule, paused=paused)

    def resume(self, job_id: str, *, patience: float | None = None) -> str | None:
        """
        Queue a job that does the rest of a job that has ended; return its id, None if there is no rest.

        Objects that the first job copied are found present; a job that stopped at its bound goes on with the objects
        that it has not looked at. The new job waits *patience* seconds for a store that does
        not answer; None means as long as the first job. Raises `JobRefused` for a job that has not ended.
        """
        spec, status = self._ended(job_id)
        if status.dry_run:
            raise JobRefused(f"job {job_id} was a dry run: there is nothing to resume")
        if status.state is State.DONE and not status.bounded:
            return None
        if spec.action.makes_snapshot:
            return self._queue(self._successor(spec, status, patience, resumes=job_id))
        left = {"pending", SnapshotState.FAILED, *([SnapshotState.CHECKED] if status.bounded else [])}
        ids = [row.id for row in self.snapshots(job_id) if row.state in left]
        if not ids and spec.everything and not status.snapshots_total:
            # The job ended before the source was listed.
            return self._queue(self._successor(spec, status, patience, resumes=job_id))
        return self._queue(self._successor(spec, status, patience, **_only(ids), resumes=job_id))

    def retry(self, job_id: str, *, patience: float | None = None) -> str:
        """
        Queue a job that copies the failed objects of another job, and publishes the snapshots that become complete.

        Return its id. *patience* as for `resume`. Raises `JobRefused` for a job that has not ended, that ended
        before all of its objects were tried, in which no object failed, or whose record was imported.
        """
        spec, status = self._ended(job_id)
        if status.state is State.DONE:
            raise JobRefused(f"job {job_id} is done: nothing failed in it")
        if status.imported:
            raise JobRefused(
                f"the record of job {job_id} comes from an export, which does not say which objects failed; use:"
                f" snapferry resume {job_id}"
            )
        with self._answering():
            unaccounted = self._ledger.unaccounted(job_id, PLAN, range(status.batches_total))
        if (unaccounted and not status.bounded) or not status.failed:
            raise JobRefused(
                f"job {job_id} ended as {status.state} before all of its objects were tried; use: snapferry resume"
                f" {job_id}"
            )
        if spec.action.makes_snapshot:
            # Only a new walk tells what the files are now. Those that were pushed are found present.
            return self._queue(self._successor(spec, status, patience, resumes=job_id))
        ids = [row.id for row in self.snapshots(job_id) if row.state not in ENDED_WELL]
        return self._queue(self._successor(spec, status, patience, **_only(ids), retries=job_id))

    def cancel(self, job_id: str) -> JobStatus:
        """
        Ask for the job to stop; return its status. Running copies stop within seconds; copied objects stay.

        May be called again. A job that has ended stays as it is.
        """
        with self._answering():
            if not self._ledger.cancel(job_id).final:
                self._drive_now(job_id, "cancel")
            return self._ledger.status(job_id)

    def pause(self, job_id: str) -> JobStatus:
        """
        Pause the job within 30 seconds; return its status. May be called again.

        No further object begins. Objects in flight have 15 seconds, then they are interrupted. Copied objects stay.
        """
        with self._answering():
            self._ledger.pause(job_id, paused=True)
            return self._ledger.status(job_id)

    def unpause(self, job_id: str) -> JobStatus:
        """Resume a paused job; return its status. May be called again."""
        with self._answering():
            if not self._ledger.pause(job_id, paused=False).final:
                self._drive_now(job_id, "continue")
            return self._ledger.status(job_id)

    def dismiss(self, job_id: str, *, by: str, why: str = "") -> JobStatus:
        """
        Note that nobody will repair a job that failed; return its status. It no longer counts as failed.

        *by* whom and *why* are kept in the record. Nothing else changes: the job may still be retried. Raises
        `JobRefused` for a job that did not fail. May be called again.
        """
        return self._dismiss(job_id, dismissed=True, by=by, why=why)

    def undismiss(self, job_id: str) -> JobStatus:
        """Take a dismissal back; return the job's status. May be called again, and for a job that was not dismissed."""
        return self._dismiss(job_id, dismissed=False)

    def _dismiss(self, job_id: str, *, dismissed: bool, by: str = "", why: str = "") -> JobStatus:
        with self._answering():
            state = self._ledger.dismiss(job_id, dismissed=dismissed, by=by, why=why)
            if state is not State.FAILED:
                raise JobRefused(
                    f"job {job_id} has not failed: it is {state}. Only failed jobs are dismissed"
                )
            return self._ledger.status(job_id)

    def prioritise(self, job_id: str, priority: Priority) -> tuple[JobStatus, int]:
        """
        Set the priority of the job's batches; return the job's status, and how many waiting batches moved.

        Batches that run are not interrupted. May be called again. A job that has ended stays as it is.
        """
        with self._answering():
            _, moved = self._ledger.prioritise(job_id, priority)
            return self._ledger.status(job_id), moved

    def limit(self, job_id: str, changed: Mapping[str, int | None]) -> JobStatus:
        """
        Set limits of a job by the names of the fields of `Limits`, None: no limit; return the job's status.

        Running batches obey within a second. May be called again. A job that has ended stays as it is.
        """
        with self._answering():
            self._limits.set_job_limits(job_id, changed)
            return self._ledger.status(job_id)

    def limit_store(self, url: str, changed: Mapping[str, Change]) -> tuple[str, StoreLimits]:
        """
        Set limits of the store at *url*, for all jobs together; return the store's name and its limits.

        None removes a limit, also one that stores of its kind have by default; "default" restores that one. The
        limits returned are those of jobs that this process submits. Raises `InvalidStoreURL`. May be called again.
        """
        store = store_id(url)
        with self._answering():
            if changed:
                self._limits.set_store_limits(store, changed)
            return store, self._limits.store_limits(store, self._settings.s3_max_requests)

    def _drive_now(self, job_id: str, why: str) -> None:
        """Queue a drive of the job. The ledger has the request already: without this call it takes effect later."""
        try:
            queue_drive(self._app, job_id, why)
        except (RedisError, OperationalError) as error:
            log.debug("cannot queue a drive of job %s: %s", job_id, error)

    def _from_settings(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: getattr(self._settings, name) for name in names}

    def _successor(self, spec: JobSpec, status: JobStatus, patience: float | None, **changed: Any) -> JobSpec:
        """Return the request for a job that continues an ended one: with the limits that this one had at its end."""
        if patience is not None:
            changed |= {"patience": patience, "waits_at_start": True}
        changed |= {"limits": status.limits}
        # All fields of a recorded request are set; nobody need have chosen them.
        return spec.successor(**self._from_settings(_BATCHING) | self._batching(spec, set()), **changed)

    def _batching(self, spec: JobSpec, given: set[str]) -> dict[str, Any]:
        """Return the fields by which the live workers cut the job; *given* are those that its caller has set."""
        with self._answering():
            return batching(
                spec,
                lambda: processes_of(self._ledger.client, copy_queue(spec.queue)),
                given | self._settings.model_fields_set,
            )

    def _queue(self, spec: JobSpec, schedule: str = "", *, paused: bool = False) -> str:
        """
        Record and queue a job; return its id.

        After an error the job's record is withdrawn, and the job does not run. If the record cannot be withdrawn
        either, the message says so.
        """
        try:
            with self._answering():
                self._ledger.create(spec, s3_requests=self._settings.s3_max_requests, schedule=schedule)
                if paused:
                    self._ledger.pause(spec.job_id, paused=True)
                if self._plan is None:
                    queue_plan(self._app, spec)
                else:
                    self._plan(spec.job_id)
        except BaseException as error:
            if self._withdrawn(spec, error):
                raise
        return spec.job_id

    def _withdrawn(self, spec: JobSpec, error: BaseException) -> bool:
        """Withdraw a job that *error* kept from being queued; return False if an orchestrator has started it anyway."""
        try:
            # A message of the job that is in the queue nevertheless is dropped: the job is unknown.
            return self._ledger.withdraw(spec.job_id, continues=spec.continues)
        except RedisError:
            raise BrokerUnavailable(
                f"{str(error) or type(error).__name__}. Job {spec.job_id} may have been recorded: then it runs when"
                f" the broker is back. To prevent that: snapferry cancel {spec.job_id}"
            ) from error

    def _ended(self, job_id: str) -> tuple[JobSpec, JobStatus]:
        with self._answering():
            status = self._ledger.status(job_id)
            if not status.state.final:
                raise JobRefused(f"job {job_id} has not ended ({status.state}); cancel it first, or watch it")
            try:
                return self._ledger.spec(job_id), status
            except ValidationError:
                raise JobRefused(
                    f"job {job_id} was submitted by another version of snapferry; submit it again"
                ) from None


def _only(snapshot_ids: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a request for *snapshot_ids*, in this order."""
    return {"snapshots": encode_addresses(snapshot_ids), "everything": False, "order": Order.GIVEN}
