"""
Queue the job of a mirror or scrub that is due, unless its last job has not ended.

A process may die between any two steps, and the message that the mirror or scrub is due is then delivered again. So the
id of the job follows from the message, and the record names the job before it is queued: each message has one job.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import ScheduleLedger, UnknownJob
from snapferry.workers.messages import JobSpec

from .status import last_job

log = logging.getLogger(__name__)

# The space of the ids of jobs that follow from messages.
_JOBS: Final = uuid.UUID("6f5d4a50-8d0b-5f3e-9c55-0c9a3b1de7aa")

# While a process queues a job, others leave the mirror or scrub alone for this many seconds.
_TAKEN_S: Final = 30


@dataclass(frozen=True)
class Queued:
    """
    The job that was queued, or why none was.

    *busy*: another process queues the job of another message, or of this one, or died while it did. Call again later.
    """

    job_id: str = ""
    skipped: str = ""
    busy: bool = False


def queue_due(
    jobs: Jobs, records: ScheduleLedger, name: str, spec: Callable[[], JobSpec], *, message_id: str = ""
) -> Queued:
    """
    Queue the job of a mirror or scrub, and record that, or that it was skipped; return which.

    *spec* makes the request. *message_id* identifies the message that it is due: a second call with the same one finds
    the job of the first, or queues it if the first call ended before. Without one, every call is a run of its own.
    Raises what `Jobs` raises.
    """
    with records.taken(name, _TAKEN_S) as mine:
        if not mine:
            return Queued(skipped="another process queues its job", busy=True)
        request = spec()
        if message_id:
            job_id = str(uuid.uuid5(_JOBS, f"{records.kind}:{name}:{message_id}"))
            request = request.model_copy(update={"job_id": job_id})
        record = records.record(name)
        if record.job_id != request.job_id:
            if _is_known(jobs, request.job_id):
                # An old message, after a later one.
                return Queued(request.job_id)
            last = last_job(jobs, record)
            if last is not None and not last.state.final:
                why = f"job {last.job_id} has not ended ({last.state})"
                records.skipped(name, why, message_id=message_id)
                log.warning("%s %s skipped: %s", records.kind, name, why)
                return Queued(skipped=why)
            # Before the job can run: a job that no record names would not keep the next one from running beside it.
            records.started(name, request.job_id)
        job_id = jobs.submit(request, schedule=f"{records.kind}:{name}")
        log.info("%s %s: job %s queued", records.kind, name, job_id)
        return Queued(job_id)


def _is_known(jobs: Jobs, job_id: str) -> bool:
    try:
        jobs.status(job_id)
    except UnknownJob:
        return False
    return True
