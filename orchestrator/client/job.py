"""One job of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.jobs import POLL_S, Jobs
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.orchestrator.reporting.progress.line import progress_text
from snapferry.orchestrator.reporting.text.outcome import done_text
from snapferry.workers.faults import one_line
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import Limits


def status_line(status: JobStatus) -> str:
    """Return how a job stands in one line, for a log: its progress, in the end its result or its error."""
    match status.state:
        case State.DONE:
            return (
                "done: nothing changed, it was a dry run" if status.dry_run else f"done: {done_text(status)}"
            )
        case State.FAILED:
            return f"failed: {status.error}"
        case _:
            return progress_text(status)


class JobFailed(Exception):
    """
    A job ended as failed or cancelled. *job* is the job, *status* its final status.

    May be sent to another process, as Celery and Prefect do; what arrives there has no *job*.
    """

    job: Job

    def __init__(self, job: Job, status: JobStatus) -> None:
        super().__init__(
            f"job {status.job_id} is {status.state}" + (f": {status.error}" if status.error else "")
        )
        self.job = job
        self.status = status

    def __reduce__(self) -> tuple[Callable[..., JobFailed], tuple[object, ...]]:
        return _received, (str(self), self.status)


def _received(text: str, status: JobStatus) -> JobFailed:
    found = JobFailed.__new__(JobFailed, text)
    found.status = status
    return found


class Job:
    """
    One job; `Client` makes it. Keeps no state but the id: each method asks the broker.

    All methods raise `BrokerUnavailable` if the broker does not answer, and `UnknownJob` if the record of the job has
    expired. All may be called again, and from several threads.
    """

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self._jobs = jobs
        self.id = job_id

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def status(self) -> JobStatus:
        """Return how the job stands."""
        return self._jobs.status(self.id)

    def events(self, *, poll_s: float = POLL_S) -> Iterator[JobStatus]:
        """
        Yield how the job stands now and after each change, until it has ended. The last one has a final state.

        Changes that follow each other within *poll_s* seconds are one event. The job continues if nobody iterates.
        """
        last: JobStatus | None = None
        for status in self._jobs.follow(self.id, poll_s=poll_s):
            if status != last:
                yield status
            last = status

    def wait(self, *, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job has ended, at most *timeout_s* seconds; return its status, final or not."""
        return self._jobs.wait(self.id, timeout_s=timeout_s)

    def result(self, *, timeout_s: float | None = None) -> JobStatus:
        """
        Wait until the job is done; return its final status.

        Raises `JobFailed` if it ended otherwise, and TimeoutError after *timeout_s* seconds; the job itself continues
        then.
        """
        status = self.wait(timeout_s=timeout_s)
        if not status.state.final:
            raise TimeoutError(f"job {self.id} has not ended within {timeout_s:g} s: it is {status.state}")
        if status.state is not State.DONE:
            raise JobFailed(self, status)
        return status

    def document(self) -> dict[str, Any]:
        """Return how the job stands as a JSON document, as docs/json.md describes it."""
        return status_document(self.status(), self.estimate() or None)

    def estimate(self) -> dict[str, Any]:
        """Return what a dry run found; empty for another job, and while it runs."""
        return self._jobs.estimate(self.id)

    def receipt(self) -> dict[str, Any]:
        """Return the receipt as a JSON document; preliminary if the job has not ended."""
        return self._jobs.receipt(self.id)

    def failures(self) -> Iterator[DeadLetter]:
        """Yield each failed object with the paths that need it. Reads manifests: raises `StoreError` if it cannot."""
        return self._jobs.failures(self.id)

    def snapshots(self) -> list[SnapshotRow]:
        """Return the snapshots of the job, each with its state and counts."""
        return self._jobs.snapshots(self.id)

    def cancel(self) -> JobStatus:
        """Stop the job. Copied objects are kept. Does nothing if it has ended."""
        return self._jobs.cancel(self.id)

    def pause(self) -> JobStatus:
        """Begin no further batch until `unpause`. Does nothing if the job has ended."""
        return self._jobs.pause(self.id)

    def unpause(self) -> JobStatus:
        """Go on with a paused job. Does nothing if it has ended."""
        return self._jobs.unpause(self.id)

    def limit(self, **changed: int | None) -> JobStatus:
        """
        Change limits: *rate*, *requests* and *jobs*, as in `Limits`; None for no limit.

        *rate* is in bytes per second, *requests* is per second, *jobs* is objects in flight. Raises ValueError for
        another name or a value that is out of range. Does nothing if the job has ended.
        """
        with one_line():
            Limits.model_validate(changed)
        return self._jobs.limit(self.id, changed)

    def latest(self) -> Job:
        """Return the newest job that continues this one, directly or through others; this one if none does."""
        status = self.status()
        while status.continued_by:
            status = self._jobs.status(status.continued_by)
        return self if status.job_id == self.id else Job(self._jobs, status.job_id)

    def retry(self, *, patience: float | None = None) -> Job:
        """
        Queue a job that copies the failed objects again; return it. *patience* is in seconds.

        Raises `JobRefused` for a job in which no object failed, that ended before all of its objects were tried, or
        whose record was imported.
        """
        return Job(self._jobs, self._jobs.retry(self.id, patience=patience))

    def resume(self, *, patience: float | None = None) -> Job | None:
        """Queue a job that does what is left of this one; return it, None if nothing is left."""
        job_id = self._jobs.resume(self.id, patience=patience)
        return None if job_id is None else Job(self._jobs, job_id)
